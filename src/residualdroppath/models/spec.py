"""How to make a network, and what its forward takes."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UserError, first_line

# Keyword arguments of one forward: shape and dtype of each tensor.
Inputs = dict[str, tuple[tuple[int, ...], torch.dtype]]


@dataclass(frozen=True)
class ModelSpec:
    """`make` returns a new network, `inputs` what to try as its inputs for a batch size, the fullest first."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[nn.Module, int], list[Inputs]]

    def build(self) -> nn.Module:
        """On the meta device, without memory or time for weights; on the CPU if it cannot be made there."""
        try:
            return self.build_on("meta")
        except Exception:  # each network fails in its own way: here mostly by reading a number off a tensor
            return self.build_on("cpu")

    def build_on(self, device: str) -> nn.Module:
        """Freshly initialised. Raises `UserError` if it cannot be made."""
        try:
            with quiet(), torch.device(device):
                return self.make()
        except Exception as error:
            raise UserError(f"{self.name} cannot be made with these options: {first_line(error)}") from error


def tensors(inputs: Inputs, device: str) -> dict[str, Tensor]:
    """Zeros of those shapes: valid as pixels, samples and tokens."""
    return {name: torch.zeros(shape, dtype=dtype, device=device) for name, (shape, dtype) in inputs.items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Libraries print and warn while they make and run networks; here that is noise."""
    with open(os.devnull, "w", encoding="utf-8") as sink, contextlib.redirect_stdout(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
