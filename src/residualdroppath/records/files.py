"""Files that survive a kill: written whole or not at all, held by one process, read with their damage reported."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import UserError


class InUse(UserError):
    """Another process holds the folder."""


@contextmanager
def locked(
    path: Path, *below: Path, in_use: str = "a run that still goes on; wait for it or stop it"
) -> Iterator[None]:
    """Make a folder, and those `below` it, and hold it for this process alone; raises `UserError` with the reason."""
    try:
        for folder in (path, *below):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise InUse(f"{path} is in use by {in_use}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written to ({error}); choose another `out`.") from error
    try:
        yield
    finally:
        lock.release()


def require_unused(path: Path) -> None:
    """A new run starts in a folder that does not exist, or is empty."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is in use; choose another `out`, or `resume` the run in it.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; the file there takes the place of `path` if no error is raised."""
    partial = path.with_name(path.name + ".partial")
    yield partial
    os.replace(partial, path)


@contextmanager
def reporting_damage(path: Path) -> Iterator[None]:
    """Errors of reading `path` as a `UserError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}). Nothing was changed; put back a whole copy, or start anew with another "
            "`out`."
        ) from error


def write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_record(path: Path, record: dict[str, Any]) -> None:
    """`write_json`, in a folder that is made if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def read_json(path: Path) -> Any:
    with reporting_damage(path):
        return json.loads(path.read_text())


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def write_state(path: Path, state: dict[str, Any]) -> None:
    """A state of plain values and tensors."""
    with replacing(path) as partial:
        torch.save(state, partial)


def read_state(path: Path) -> Any:
    """What `write_state` wrote, on the CPU. Runs no code from the file."""
    return torch.load(path, map_location="cpu", weights_only=True)


def write_weights(path: Path, weights: dict[str, torch.Tensor]) -> None:
    with replacing(path) as partial:
        # Tied weights share memory, which safetensors refuses; clones are equal.
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}, partial)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Weights from a safetensors file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); check the path.") from error


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
