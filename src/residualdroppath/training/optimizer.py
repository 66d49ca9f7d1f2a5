"""The optimizer of a recipe: which parameters decay, and how it is made."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import UserError
from .learning_rate import learning_rate
from .recipe import Recipe
from .timm_optimizers import layer_decay_groups, timm_optimizer
from .training_options import OWN_OPTIMIZERS

ARGUMENTS = {"sgd": ("momentum",), "adamw": ("betas", "eps")}


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """torch's SGD and AdamW, or timm's by name. Raises `UserError` for what an optimizer does not have."""
    given = {name: getattr(recipe, name) for name in ("momentum", "betas", "eps")}
    given = {name: value for name, value in given.items() if value is not None}
    optimizer = _made(model, recipe, given)
    scales = {group.get("lr_scale", 1.0) for group in optimizer.param_groups}
    if recipe.layer_decay not in (None, 1.0) and len(scales) == 1:
        raise UserError(
            f"`layer_decay` must be left out: by timm all that learns in {recipe.model} is of one group of layers."
        )
    return optimizer


def _made(model: nn.Module, recipe: Recipe, given: dict[str, Any]) -> torch.optim.Optimizer:
    if recipe.optimizer not in OWN_OPTIMIZERS:
        return timm_optimizer(
            model,
            recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            layer_decay=recipe.layer_decay,
            arguments=given,
        )
    if lacking := [name for name in given if name not in ARGUMENTS[recipe.optimizer]]:
        raise UserError(f"`{lacking[0]}` must be left out, `optimizer` {recipe.optimizer} has none.")
    if len(given.get("betas", (0, 0))) != 2:
        raise UserError(f"`betas` must be 2 numbers for `optimizer` adamw, got {len(given['betas'])}.")
    if recipe.layer_decay is None:
        groups = parameter_groups(model, recipe.weight_decay)
    else:
        groups = layer_decay_groups(model, recipe.weight_decay, recipe.layer_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, **given)
    momentum = given.get("momentum", 0.9)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=momentum, nesterov=momentum > 0)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases, norms and scales."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def learning_rate_of(recipe: Recipe, iteration: int, total_iterations: int, epoch: int) -> float:
    """Of iteration 1, 2, ... of a recipe, in the epoch after so many whole ones, but for a plateau's factor."""
    warmup = recipe.warmup
    if recipe.warmup_iterations is not None:
        warmup = recipe.warmup_iterations / (total_iterations + 1)
    return learning_rate(
        recipe.lr,
        warmup,
        iteration,
        total_iterations,
        recipe.lr_over_time,
        min_lr=recipe.min_lr,
        power=recipe.power,
        epoch=epoch,
        decay_epochs=recipe.decay_epochs,
        decay_rate=recipe.decay_rate,
    )
