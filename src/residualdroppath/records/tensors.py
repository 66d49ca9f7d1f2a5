"""Arrays, states and weights as files, written whole or not at all; nothing in them is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import UserError, first_line
from .files import replacing


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


def write_weights(path: Path, weights: dict[str, torch.Tensor]) -> None:
    with replacing(path) as partial:
        try:
            # Tied weights share memory, which safetensors refuses; clones are equal.
            save_file({name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}, partial)
        except SafetensorError as error:
            raise OSError(first_line(error)) from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Weights from a safetensors file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); check the path.") from error
