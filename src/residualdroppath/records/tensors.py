"""Arrays, states and weights as files, written whole or not at all; nothing in them is run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..errors import UserError, first_line
from .files import replacing

KEY = "residualdroppath"  # of the only entry in the metadata of a weights file: several come in any order


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def write_state(path: Path, state: dict[str, Any]) -> None:
    """A state of plain values and tensors."""
    with replacing(path) as partial, partial.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # with a full disk, of a position in the file
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_state(path: Path) -> Any:
    """What `write_state` wrote, on the CPU. Runs no code from the file."""
    return torch.load(path, map_location="cpu", weights_only=True)


def write_weights(path: Path, weights: Mapping[str, torch.Tensor], about: Mapping[str, Any] | None = None) -> None:
    """A safetensors file; `about`, plain values, goes into its metadata, with a digest of both."""
    # Tied weights share memory, which safetensors refuses; clones are equal.
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}
    metadata = None
    if about is not None:
        metadata = {KEY: json.dumps({**about, "sha256": digest(tensors, about)}, sort_keys=True)}
    with replacing(path) as partial:
        try:
            save_file(tensors, partial, metadata)
        except SafetensorError as error:
            raise OSError(first_line(error)) from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Weights from a safetensors file. Raises `UserError` if they are not those that its metadata are of."""
    return read_described(path)[0]


def read_described(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """Weights, and what `write_weights` was given about them; None in files of others."""
    about = read_about(path)
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); check the path.") from error
    if about is not None and about.pop("sha256", None) != digest(weights, about):
        raise UserError(f"{path} is damaged: it is not what was written; put back a whole copy.")
    return weights, about


def read_about(path: Path) -> dict[str, Any] | None:
    """What `write_weights` was given about the weights, with the digest, which is not compared here."""
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); check the path.") from error
    try:
        return None if text is None else dict(json.loads(text))
    except (ValueError, RecursionError, TypeError) as error:
        raise UserError(f"{path} is damaged: it is not what was written; put back a whole copy.") from error


def digest(weights: Mapping[str, torch.Tensor], about: Mapping[str, Any] | None = None) -> str:
    """Of names, types, shapes and values, and of plain values about them."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
    return found.hexdigest()
