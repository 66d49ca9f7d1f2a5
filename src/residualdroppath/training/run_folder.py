"""The folder of one run: nothing in it is overwritten, and a kill loses at most the current epoch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from ..errors import UserError
from ..records.files import locked, parse_json, read_json, reporting_damage, write_json, write_text
from ..records.tensors import write_weights
from .checkpoints import Checkpoints
from .recipe import TrainConfig, read_config

LOGGER = logging.getLogger("residualdroppath")
Rows = list[dict[str, int | float]]


@with_config(ConfigDict(extra="allow"))
class Result(TypedDict):
    """What every result holds; what else there is depends on the recipe."""

    iterations: int
    train_accuracy: float
    validation_accuracy: float


class RunFolder:
    """`config.yaml`, `environment.json`, `metrics.jsonl`, `checkpoints/`, `model.safetensors`, `result.json`.

    `log.txt` is there if something had to be noted.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = Checkpoints(path / "checkpoints")

    @contextmanager
    def opened(self, config: TrainConfig, *, resume: bool) -> Iterator[None]:
        """Claim the folder for this process: a new one, or with `resume` one of the same configuration."""
        config_path = self.path / "config.yaml"
        if resume:
            if not config_path.is_file():
                raise UserError(
                    f"{self.path} holds no run to resume (no config.yaml); leave out `resume` to start one."
                )
            self._require_same(config, read_config(TrainConfig, config_path))
        with locked(self.path, self.checkpoints.path, new=not resume), self._logged():
            if not resume:
                self.checkpoints.begin()
                write_text(config_path, config.to_yaml())
            yield

    @contextmanager
    def _logged(self) -> Iterator[None]:
        """Warnings of the package, such as output that nobody reads any more, in `log.txt` as well."""
        handler = logging.FileHandler(self.path / "log.txt", encoding="utf-8", delay=True)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        LOGGER.addHandler(handler)
        try:
            yield
        finally:
            LOGGER.removeHandler(handler)
            handler.close()

    def _require_same(self, config: TrainConfig, stored: TrainConfig) -> None:
        ours, theirs = config.located().model_dump(), stored.located().model_dump()
        if different := [
            f"{name} ({theirs[name]} there, {ours[name]} now)" for name in ours if ours[name] != theirs[name]
        ]:
            raise UserError(f"A resumed run keeps its configuration; {self.path} differs in {', '.join(different)}.")

    @property
    def result(self) -> dict[str, Any] | None:
        """The result, if the run has ended."""
        path = self.path / "result.json"
        return read_json(path, Result) if path.is_file() else None

    def metrics(self, epochs: int | None = None) -> list[dict[str, Any]]:
        """One row per epoch: all that are there, or exactly the first `epochs`."""
        path = self.path / "metrics.jsonl"
        with reporting_damage(path):
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            rows = parse_json(f"[{','.join(text.splitlines())}]", Rows)
            if epochs is not None and len(rows) < epochs:
                raise ValueError(f"it holds {len(rows)} of {epochs} epochs")
        return rows[:epochs]

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def note_environment(self, environment: dict[str, Any]) -> None:
        """One more entry: a run has one for each time that it was started."""
        path = self.path / "environment.json"
        before = read_json(path, list[dict[str, Any]]) if path.is_file() else []
        write_json(path, [*before, environment])

    def save_model(self, weights: dict[str, torch.Tensor]) -> None:
        write_weights(self.path / "model.safetensors", weights)
