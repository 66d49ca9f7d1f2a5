"""Losses and weights that are no longer finite."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..errors import UserError


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
    return float(torch.stack([p.abs().max().float() for p in model.parameters() if p.numel()]).max())
