"""The optimizer of a recipe: which parameters decay, and the learning rate over training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from .recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups = parameter_groups(model, recipe.weight_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases, norms and scales."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def learning_rate(
    largest: float, warmup: float, iteration: int, total_iterations: int, over_time: str = "cosine"
) -> float:
    """Of iteration 1, 2, ..., `total_iterations`: linear from 0 over the part `warmup`, then half a cosine to 0.

    With `over_time` "constant" it is `largest` after `warmup`.
    """
    progress = iteration / (total_iterations + 1)
    if progress < warmup:
        return largest * progress / warmup
    if over_time == "constant":
        return largest
    return largest * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
