"""Losses and weights that are no longer finite."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..errors import UserError
from .sharding import local


class Diverged(UserError):
    """The loss is no longer finite."""


def require_finite(value: float, what: str, *, epoch: int, iteration: int, lr: float) -> None:
    if not math.isfinite(value):
        raise Diverged(
            f"The {what} no longer finite (epoch {epoch}, by iteration {iteration}). The checkpoint before, if any, is "
            f"kept. Try a lower `lr` (now {lr:g}), a longer `warmup`, or `amp` bf16 or none."
        )


@torch.no_grad()
def largest_weight(model: nn.Module) -> float:
    """Of those in this process, infinite if one is not a number."""
    values = [local(parameter) for parameter in model.parameters()]
    largest = float(torch.stack([each.abs().max().float() for each in values if each.numel()]).max())
    return math.inf if math.isnan(largest) else largest  # NaN has no place in an order
