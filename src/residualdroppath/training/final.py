"""What a run ends with: the weights that its recipe chooses, their norms, their test, and the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .averaging import recalibrate_norms
from .run_folder import RunFolder
from .runtime import derived_seed
from .sharding import load_weights
from .trainer import Trainer

TOP5 = "validation_top5_accuracy"


def final_network(trainer: Trainer, folder: RunFolder) -> nn.Module:
    """The network with the weights of `use`, its norms recalibrated if the recipe has it."""
    config = trainer.config
    model = trainer.model
    if config.use == "ema":
        model = trainer.ema.module
    elif config.use == "best":
        load_weights(model, trainer.processes.from_main(folder.checkpoints.best_weights))
    if config.recalibrate_norms:
        _recalibrate(trainer, model)
    return model


def known_before(trainer: Trainer) -> dict[str, Any]:
    """What of a result does not depend on the training."""
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    return {"train_images": len(trainer.data.train), "parameters": parameters}


def result_of(trainer: Trainer, model: nn.Module, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a run came to, tested once if its recipe has it; `model` is its `final_network`."""
    config, data = trainer.config, trainer.data
    validation = {name: value for name, value in rows[-1].items() if name in ("validation_accuracy", TOP5)}
    if config.use != "last" or config.recalibrate_norms:
        validation = trainer.evaluate(data.validation, model).named("validation")
        del validation["validation_loss"]  # which the result of other runs does not hold
    test = {}
    if config.test and data.has_test:
        test = trainer.evaluate(data.test, model).named("test")
    validated = [row for row in rows if "validation_accuracy" in row]
    best = max(validated, key=lambda row: row["validation_accuracy"])
    peaks = [row["peak_memory"] for row in rows if "peak_memory" in row]
    return {
        "method": config.method,
        "seed": config.seed,
        "epochs": trainer.epochs,
        "iterations": trainer.iteration,
        "trunk_updates": trainer.trunk_updates,
        **known_before(trainer),
        "train_loss": rows[-1]["train_loss"],
        "train_accuracy": rows[-1]["train_accuracy"],
        "weights": config.use,
        **validation,
        "best_epoch": best["epoch"],
        "best_validation_accuracy": best["validation_accuracy"],
        **test,
        "train_seconds": sum(row["train_seconds"] for row in rows),
        **({"peak_memory": max(peaks)} if peaks else {}),
    }


def _recalibrate(trainer: Trainer, model: nn.Module) -> None:
    """On the first batches of an epoch that no training sees, augmented but not mixed."""
    epoch, wanted = trainer.epochs + 1, trainer.config.recalibrate_norms
    torch.manual_seed(derived_seed(trainer.config.seed_of("order"), f"dropout {epoch}"))

    def images():
        given = 0
        while given < wanted:
            for batch, _ in trainer.batches(epoch, mixed=False):
                yield batch
                given += 1
                if given == wanted:
                    return

    recalibrate_norms(model, trainer.rdp if model is trainer.model else None, images(), trainer.autocast)
