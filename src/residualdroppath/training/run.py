"""`train`: a recipe and a folder in, a trained network and its record out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.images import ImageData
from ..data.load import load_data
from ..data.request import Request
from ..records.environment import environment
from ..records.files import write_json
from .progress import OnEpoch, TrainingProgress
from .recipe import Recipe, TrainConfig
from .run_folder import RunFolder
from .run_page import write_run_page
from .trainer import Trainer


def load_config_data(config: Recipe) -> ImageData:
    """The data that a recipe asks for."""
    return load_data(request_of(config), **cuts_of(config))


def request_of(config: Recipe) -> Request:
    """The set that a recipe names."""
    return Request(
        data=config.data,
        data_dir=config.data_dir,
        download=config.download,
        image_size=config.image_size,
        label_column=config.label_column,
        image_column=config.image_column,
    )


def cuts_of(config: Recipe) -> dict[str, Any]:
    """Which of its images are used for what."""
    names = ("validation_fraction", "train_size", "images_per_class", "num_classes", "class_seed", "split_seed")
    return {name: getattr(config, name) for name in names}


def train(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    title: str = "train",
    data: ImageData | None = None,
    on_start: Callable[[Trainer], None] | None = None,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Train as `config` says, keep everything in `out`, and return the result.

    With `resume` the run in `out` goes on after its last whole epoch, and ends with the weights that
    it would have had uninterrupted (on CPU bit for bit). `data` spares reading it again. `on_start` is called before
    the first iteration; then the time expected is shown, once it is known. With `on_epoch`, called after each epoch
    with it and their number, nothing is shown, and no page is written.
    """
    folder = RunFolder(out)
    if data is None:
        config = config.located()
        data = load_config_data(config)
    trainer = Trainer(config, data)  # before the folder is claimed: a mistake leaves none behind
    with folder.opened(config, resume=resume):
        if folder.result is not None:
            return folder.result
        checkpoint = folder.checkpoints.load()
        epoch = 0
        if checkpoint is not None:
            trainer.load_state_dict(*checkpoint)
            epoch = int(checkpoint[1]["epoch"])
        rows = folder.metrics(epoch)
        folder.note_environment(environment(trainer.device))  # when all else was found whole

        if on_start is not None:
            on_start(trainer)
        with TrainingProgress(
            title, trainer.total_iterations, trainer.iteration, estimate=on_start is not None, on_epoch=on_epoch
        ) as progress:
            while epoch < trainer.epochs:
                epoch += 1
                progress.start_epoch()
                row = {"epoch": epoch, **trainer.train_epoch(epoch, progress), "iteration": trainer.iteration}
                if epoch % config.validate_every == 0 or epoch == trainer.epochs:
                    row["validation_loss"], row["validation_accuracy"] = trainer.evaluate(data.validation)
                    trainer.require_finite(row["validation_loss"], epoch)  # the last update is in no training loss
                rows.append(row)
                folder.write_metrics(rows)  # first: a resumed run drops a row too many, it cannot make up one
                folder.checkpoints.save(epoch, trainer.model.state_dict(), trainer.state_dict(epoch))
                progress.epoch_line(row, trainer.epochs)

        test = {}
        if config.test and data.has_test:
            test = dict(zip(("test_loss", "test_accuracy"), trainer.evaluate(data.test), strict=True))
        result = {
            "method": config.method,
            "seed": config.seed,
            "epochs": trainer.epochs,
            "iterations": trainer.iteration,
            "trunk_updates": trainer.trunk_updates,
            "train_images": len(data.train),
            "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
            "train_loss": rows[-1]["train_loss"],
            "train_accuracy": rows[-1]["train_accuracy"],
            "validation_accuracy": rows[-1]["validation_accuracy"],
            **test,
            "train_seconds": sum(row["train_seconds"] for row in rows),
        }
        folder.save_model(trainer.model.state_dict())
        if on_epoch is None:
            write_run_page(folder, config, result)
        write_json(folder.path / "result.json", result)
        return result
