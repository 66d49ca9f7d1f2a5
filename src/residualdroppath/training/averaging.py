"""An average of the weights over updates, and batch norms measured anew: what a network is deployed with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from ..core.residual_drop_path import ResidualDropPath
from ..core.torch_internals import BatchNorm
from ..errors import UserError
from ..models.torchvision_ops import ensure_torchvision_ops
from .recipe import Recipe


def averaged(model: nn.Module, recipe: Recipe) -> Any:
    """timm's `ModelEmaV3` of a network on which nothing acts yet, or None where the recipe has no `ema`."""
    if recipe.ema is None:
        return None
    ensure_torchvision_ops()
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(model, decay=recipe.ema, use_warmup=recipe.ema_warmup)


def require_batch_norms(model: nn.Module, recipe: Recipe) -> None:
    """Raises `UserError` where norms are to be recalibrated and there are none that keep statistics."""
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    if recipe.recalibrate_norms and not any(norm.track_running_stats for norm in norms):
        raise UserError(
            f"`recalibrate_norms` must be 0: {recipe.model} has no batch norms, whose statistics it measures."
        )


def recalibrate_norms(
    model: nn.Module,
    rdp: ResidualDropPath | None,
    images: Iterable[Tensor],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Running statistics of batch norms become means over some batches, of the full network: no branch is dropped."""
    with nullcontext() if rdp is None else rdp.paused(), autocast(), torch.no_grad():
        update_bn(images, model)  # type: ignore[arg-type]
    model.eval()
