"""The folder of one run: nothing in it is overwritten, and a kill loses what came after the last checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired

import torch
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from ..data.identity import differences as data_differences
from ..data.identity import only_test_differs
from ..errors import UserError
from ..records.files import locked, parse_json, read_json, reporting_damage, sha256, write_json, write_text
from ..records.tensors import read_weights, write_weights
from .checkpoints import Checkpoints
from .logs import to_csv
from .longer import differences
from .recipe import TrainConfig, read_config

LOGGER = logging.getLogger("residualdroppath")
Rows = list[dict[str, int | float]]
OF_EVERY_EPOCH = {"epoch", "train_loss", "train_accuracy", "train_seconds"}


@with_config(ConfigDict(extra="allow"))
class Result(TypedDict):
    """What every result holds; what else there is depends on the recipe."""

    epochs: int
    iterations: int
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: NotRequired[float]


class RunFolder:
    """What a run needs to go on, and what came of it.

    `config.yaml`, `data.json`, `environment.json`, `metrics.jsonl`, `log.csv`, `checkpoints/`, `model.safetensors`,
    `result.json`; `log.txt` is there if something had to be noted.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = Checkpoints(path / "checkpoints")

    @contextmanager
    def opened(self, config: TrainConfig, *, resume: bool) -> Iterator[None]:
        """Claim the folder for this process: a new one, or with `resume` one of a recipe that `config` goes on with."""
        config_path = self.path / "config.yaml"
        if resume:
            if not config_path.is_file():
                raise UserError(
                    f"{self.path} holds no run to resume (no config.yaml); leave out `resume` to start one."
                )
            stored = read_config(TrainConfig, config_path)
            if different := differences(stored, config):
                raise UserError(
                    f"A resumed run keeps its configuration; {self.path} differs in {', '.join(different)}."
                )
        with locked(self.path, self.checkpoints.path, new=not resume), self._logged():
            if not resume:
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

    def require_data(self, found: dict[str, Any]) -> str | None:
        """Raise `UserError` unless the data are those of the run, if it has been started.

        Test images may have changed before they were used, such as by replacing a damaged one: a line on it.
        """
        path = self.path / "data.json"
        if not path.is_file() or not (different := data_differences(before := read_json(path, dict[str, Any]), found)):
            return None
        if self.result is None and only_test_differs(before, found):
            return f"the test part is not what it was when the run began, it differs in {', '.join(different)}"
        raise UserError(
            f"A resumed run keeps its data; those of {self.path} differ in {', '.join(different)}. Put them back, "
            "or start anew with another `out`."
        )

    def require_weights(self, sha256: str | None) -> None:
        """Raise `UserError` unless the weights to start from are those of the run, if it has been started."""
        path = self.path / "start.json"
        before = read_json(path, dict[str, Any]).get("sha256") if path.is_file() else sha256
        if before != sha256:
            raise UserError(
                f"A resumed run keeps the weights that it started from; those of {self.path} had another content. Put "
                "the file back, or start anew with another `out`."
            )

    def note_weights(self, sha256: str | None) -> None:
        """The digest of the weights to start from, if they are not random."""
        if sha256 is not None:
            write_json(self.path / "start.json", {"sha256": sha256})

    def note_start(self, config: TrainConfig, data: dict[str, Any], environment: dict[str, Any]) -> None:
        """What the data are (test images may have changed), a recipe of more epochs, and one more environment: one for
        each time of starting.
        """
        noted = self.path / "data.json"
        if (changed := self.require_data(data)) is not None:
            LOGGER.warning(changed)
        if changed is not None or not noted.is_file():
            write_json(noted, data)
        environments = self.path / "environment.json"
        write_json(
            environments,
            [*(read_json(environments, list[dict[str, Any]]) if environments.is_file() else []), environment],
        )
        if read_config(TrainConfig, self.path / "config.yaml").epochs != config.epochs:
            write_text(self.path / "config.yaml", config.to_yaml())
        (self.path / "result.json").unlink(missing_ok=True)  # that of fewer epochs

    @property
    def result(self) -> dict[str, Any] | None:
        """The result, if the run has ended."""
        path = self.path / "result.json"
        return read_json(path, Result) if path.is_file() else None

    def require_unfinished(self) -> None:
        """No more is there than what a kill in the first save leaves, where there is no checkpoint to go on from."""
        weights = self.path / "model.safetensors"
        if weights.is_file() or len(self.metrics()) > 1:
            raise UserError(
                f"{self.checkpoints.path} holds no checkpoint to resume from, but {self.path} holds "
                f"{'final weights' if weights.is_file() else 'epochs of training'}. Nothing was changed; put the "
                "checkpoints back, or start anew with another `out`."
            )

    def metrics(self, epochs: int | None = None) -> list[dict[str, Any]]:
        """One row per epoch: all that are there, or exactly the first `epochs`."""
        path = self.path / "metrics.jsonl"
        with reporting_damage(path):
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            rows = parse_json(f"[{','.join(text.splitlines())}]", Rows)
            if any(not row.keys() >= OF_EVERY_EPOCH for row in rows):
                raise ValueError(f"an epoch lacks one of {', '.join(sorted(OF_EVERY_EPOCH))}")
            if epochs is not None and len(rows) < epochs:
                raise ValueError(f"it holds {len(rows)} of {epochs} epochs")
        return rows[:epochs]

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """As JSON lines, which are read again, and as a table for others."""
        write_text(self.path / "log.csv", to_csv(rows))
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def save_model(self, weights: dict[str, torch.Tensor], about: dict[str, Any] | None = None) -> str:
        """Keep the final weights, and return the digest of their file, which the result is to hold."""
        write_weights(self._model, weights, about)
        return sha256(self._model)

    def save_average(self, weights: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        """The averaged weights, next to final ones that are others."""
        write_weights(self.path / "ema.safetensors", weights, about)

    def weights_file(self) -> Path:
        """The final weights, found whole, or those of the last checkpoint that is. Raises `UserError` without any.

        Final weights without a result are those of fewer epochs, if a run that is made longer has checkpoints.
        """
        last = None if self._model.is_file() and self.result is not None else self.checkpoints.last_weights()
        if last is not None:
            return last
        if not self._model.is_file():
            raise UserError(f"{self.path} holds no weights yet; let the run finish an epoch first.")
        self.final_weights()
        return self._model

    def final_weights(self) -> dict[str, torch.Tensor] | None:
        """Those that the run ended with, or None before. Raises `UserError` if they are not what was written."""
        if not self._model.is_file():
            return None
        digest = (self.result or {}).get("model_sha256")  # not of a run that is about to end, nor of version 0.1.0
        if digest is not None and sha256(self._model) != digest:
            raise UserError(f"{self._model} is damaged: it is not what was written; put back a whole copy.")
        return read_weights(self._model)

    @property
    def _model(self) -> Path:
        return self.path / "model.safetensors"
