"""A small BERT, its data, and a `Trainer` over both: for the tests of the callback."""

from __future__ import annotations

from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

NUM_UPDATES = 6
ROWS = 2


def bert(*, layers: int = 3, dropout: float = 0.1) -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        classifier_dropout=dropout,
        attn_implementation="eager",  # pyright: ignore[reportCallIssue]
    )
    return BertForSequenceClassification(config)


def rows(count: int = 24) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [{"input_ids": torch.randint(20, (8,), generator=generator), "labels": row % 2} for row in range(count)]


def arguments(folder: Path | str, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "max_steps": NUM_UPDATES,
        "per_device_train_batch_size": ROWS,
        "per_device_eval_batch_size": 8,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(str(folder), **(settings | changes))


def trainer_of(
    folder: Path | str, *callbacks: TrainerCallback, model: Any = None, model_init: Any = None, **changes: Any
) -> Trainer:
    """`optimizers` and whatever else `Trainer` takes goes to it, all other changes to its arguments."""
    own = {name: changes.pop(name) for name in ("optimizers", "compute_metrics") if name in changes}
    return Trainer(
        bert() if model is None and model_init is None else model,
        arguments(folder, **changes),
        train_dataset=rows(),  # pyright: ignore[reportArgumentType]
        eval_dataset=rows(8),  # pyright: ignore[reportArgumentType]
        model_init=model_init,
        callbacks=list(callbacks),
        **own,
    )


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    differing = [name for name, value in first.items() if not torch.equal(value, second[name])]
    assert not differing, f"{len(differing)} of {len(first)} tensors differ: {differing[:3]}"


def is_plain(model: nn.Module) -> bool:
    """Whether all forwards are those of their classes; copies hold them as attributes."""
    return all(module.forward == MethodType(type(module).forward, module) for module in model.modules())
