"""The folder of one run: nothing in it is overwritten, and a kill loses at most the current epoch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import UserError, first_line
from .config import TrainConfig, read_config


@contextmanager
def locked(
    path: Path, *below: Path, in_use: str = "a run that still goes on; wait for it or stop it"
) -> Iterator[None]:
    """Make a folder, and those `below` it, and hold it for this process alone; raises `UserError` saying why not."""
    try:
        for folder in (path, *below):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{path} is in use by {in_use}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written to ({error}); choose another `out`.") from error
    try:
        yield
    finally:
        lock.release()


class RunFolder:
    """`config.yaml`, `environment.json`, `metrics.jsonl`, `checkpoints/`, `model.safetensors`, `result.json`."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"

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
        else:
            require_unused(self.path)
        with locked(self.path, self.checkpoints):
            if not resume:
                write_atomically(config_path, config.to_yaml())
            yield

    def _require_same(self, config: TrainConfig, stored: TrainConfig) -> None:
        ours, theirs = config.model_dump(), stored.model_dump()
        if different := [
            f"{name} ({theirs[name]} there, {ours[name]} now)" for name in ours if ours[name] != theirs[name]
        ]:
            raise UserError(f"A resumed run keeps its configuration; {self.path} differs in {', '.join(different)}.")

    @property
    def result(self) -> dict[str, Any] | None:
        """The result, if the run has ended."""
        path = self.path / "result.json"
        return read_json(path) if path.is_file() else None

    def metrics(self, epochs: int | None = None) -> list[dict[str, Any]]:
        """One row per epoch: all that are there, or exactly the first `epochs`."""
        path = self.path / "metrics.jsonl"
        with _telling_damage(path):
            rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
            if epochs is not None and len(rows) < epochs:
                raise ValueError(f"it holds {len(rows)} of {epochs} epochs")
        return rows[:epochs]

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def note_environment(self, environment: dict[str, Any]) -> None:
        """One more entry: a run has one for each time that it was started."""
        path = self.path / "environment.json"
        before = read_json(path) if path.is_file() else []
        write_json(path, [*before, environment])

    def save_checkpoint(self, epoch: int, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Make `epoch` the latest checkpoint; the one before stays until this one is whole."""
        _save_weights(weights, self._weights(epoch))
        partial = self._state(epoch).with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self._state(epoch))
        files = (self._weights(epoch), self._state(epoch))
        # Neither format notices a changed byte by itself.
        write_json(
            self.checkpoints / "latest.json", {"epoch": epoch, "sha256": {path.name: _sha256(path) for path in files}}
        )
        for path in self.checkpoints.glob("epoch_*"):
            if path not in files:
                path.unlink()

    def load_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Weights and state of the latest checkpoint, or None before the first. Runs no code from the files."""
        latest = self.checkpoints / "latest.json"
        if not latest.is_file():
            return None
        try:
            written = json.loads(latest.read_text())
            epoch = int(written["epoch"])
            for name, digest in written.get("sha256", {}).items():
                if _sha256(self.checkpoints / name) != digest:
                    raise ValueError(f"{name} is not what was written")
            weights = load_file(self._weights(epoch))
            state = torch.load(self._state(epoch), map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or state.get("epoch") != epoch:
                raise ValueError("it is not the state of that epoch")
        except Exception as error:  # a damaged file can fail in any way that its readers know
            raise UserError(
                f"The checkpoint in {self.checkpoints} is damaged ({first_line(error)}). Nothing was changed; put back "
                "a whole copy, or start anew with another `out`."
            ) from error
        return weights, state

    def save_model(self, weights: dict[str, torch.Tensor]) -> None:
        _save_weights(weights, self.path / "model.safetensors")

    def _weights(self, epoch: int) -> Path:
        return self.checkpoints / f"epoch_{epoch:04d}.safetensors"

    def _state(self, epoch: int) -> Path:
        return self.checkpoints / f"epoch_{epoch:04d}.state.pt"


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Weights from a safetensors file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); check the path.") from error


def require_unused(path: Path) -> None:
    """A new run starts in a folder that is not there, or empty."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is in use; choose another `out`, or `resume` the run in it.")


def read_json(path: Path) -> Any:
    with _telling_damage(path):
        return json.loads(path.read_text())


@contextmanager
def _telling_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}). Nothing was changed; put back a whole copy, or start anew with another "
            "`out`."
        ) from error


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _save_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    # Tied weights share memory, which safetensors refuses; clones are equal.
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}, partial)
    os.replace(partial, path)
