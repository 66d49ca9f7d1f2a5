"""Runs of a second, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath.training.checkpoints import Checkpoints
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import train
from residualdroppath.training.run_folder import RunFolder

TIMINGS = ("train_seconds", "images_per_second", "data_share")


def tiny(**options: Any) -> TrainConfig:
    """Three iterations an epoch, so that epochs end in the middle of a cycle of two."""
    defaults = {"depth": 8, "width": 2, "train_size": 96, "batch_size": 32, "epochs": 2, "lr": 0.05, "device": "cpu"}
    return TrainConfig(**{**defaults, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows, without what a clock says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMINGS} for row in rows]


def final_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    checkpoint = RunFolder(folder).checkpoints.load()
    assert checkpoint is not None
    return checkpoint.weights, checkpoint.state


def manifests(folder: Path) -> list[int]:
    """Iterations of the checkpoints of a run."""
    return sorted(int(path.stem.removeprefix("iteration_")) for path in (folder / "checkpoints").glob("*.json"))


def interrupted(config: TrainConfig, out: Path, monkeypatch: pytest.MonkeyPatch, *, after: int = 1) -> Path:
    """A run that Ctrl-C ends when `after` epochs are kept."""
    with monkeypatch.context() as patch:
        save = Checkpoints.save

        def save_and_stop(self: Checkpoints, weights: Any, state: Any, **rest: Any) -> None:
            save(self, weights, state, **rest)
            if state["epoch"] == after:
                raise KeyboardInterrupt

        patch.setattr(Checkpoints, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, out)
    return out
