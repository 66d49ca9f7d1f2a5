"""The folder of a spiral run: one whole result per network, so that a resumed run keeps what is finished."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from ...errors import UserError
from ...records.files import locked, read_json, write_json
from .config import SpiralConfig


@with_config(ConfigDict(extra="allow"))
class _Result(TypedDict):
    """What `measure` returns, of which the summary is made."""

    scalars: dict[str, float]
    sweep: list[Any]
    profiles: dict[str, list[Any]]
    matrices: dict[str, list[Any]]


@dataclass(frozen=True)
class SpiralFolder:
    """`config.json`, `ROW/seed_N/` with `model.safetensors`, `result.json` and pictures, then record and page."""

    path: Path

    @contextmanager
    def opened(self, config: SpiralConfig, *, resume: bool) -> Iterator[None]:
        """Claim the folder: a new one, or with `resume` one of the same configuration (`seeds` may differ)."""
        stored = self.path / "config.json"
        goes_on = resume and stored.is_file()
        if goes_on:
            ours, theirs = json.loads(config.model_dump_json()), read_json(stored, dict[str, Any])
            names = [name for name in ours if name != "seeds" and ours[name] != theirs.get(name)]
            if names:
                differences = ", ".join(f"{name} ({theirs.get(name)} there, {ours[name]} now)" for name in names)
                raise UserError(f"A resumed run keeps its configuration; {self.path} differs in {differences}.")
        with locked(self.path, new=not goes_on):
            write_json(stored, json.loads(config.model_dump_json()))
            yield

    def of(self, row: str, seed: int) -> Path:
        """The folder of one network."""
        return self.path / row / f"seed_{seed}"

    def finished(self, row: str, seed: int) -> bool:
        return (self.of(row, seed) / "result.json").is_file()

    def result(self, row: str, seed: int) -> dict[str, Any]:
        return dict(read_json(self.of(row, seed) / "result.json", _Result))

    def pictures(self, row: str) -> dict[str, np.ndarray]:
        """What the first seed's network looks like (`snapshots.py`)."""
        path = self.of(row, 0) / "pictures.npz"
        try:
            with np.load(path) as arrays:
                return dict(arrays)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); delete {path.parent} and resume.") from error
