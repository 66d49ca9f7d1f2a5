"""timm's optimizers by name, and its groups of parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import UserError, did_you_mean, first_line
from ..models.torchvision_ops import ensure_torchvision_ops
from .training_options import OWN_OPTIMIZERS

LOOKAHEAD = "lookahead_"


def require_known(name: str) -> None:
    """Raises `ValueError` for a name that timm does not have, or whose update needs more than a gradient."""
    optim = _timm_optim()
    plain = name.lower().removeprefix(LOOKAHEAD)
    known = optim.list_optimizers()
    if plain not in known:
        raise ValueError(
            f"`optimizer` must be {', '.join(OWN_OPTIMIZERS)} or a name that timm has{did_you_mean(plain, known)}"
        )
    if optim.get_optimizer_info(plain).second_order:
        raise ValueError("`optimizer` must need first derivatives alone, those of second order are not supported")


def require_arguments(name: str, given: dict[str, Any]) -> None:
    """Raises `UserError` for `momentum`, `betas` or `eps` that an optimizer of timm does not have."""
    info = _timm_optim().get_optimizer_info(name.lower().removeprefix(LOOKAHEAD))
    has = {"momentum": info.has_momentum, "betas": info.has_betas, "eps": info.has_eps}
    if lacking := [option for option in given if not has[option]]:
        raise UserError(f"`{lacking[0]}` must be left out, `optimizer` {name} has none.")
    if "betas" in given and len(given["betas"]) != info.num_betas:
        raise UserError(f"`betas` must be {info.num_betas} numbers for `optimizer` {name}, got {len(given['betas'])}.")


def timm_optimizer(
    model: nn.Module, name: str, *, lr: float, weight_decay: float, layer_decay: float | None, arguments: dict[str, Any]
) -> torch.optim.Optimizer:
    """No weight decay for biases, norms, scales, and what the network itself exempts."""
    require_arguments(name, arguments)
    try:
        return _timm_optim().create_optimizer_v2(
            model, opt=name, lr=lr, weight_decay=weight_decay, layer_decay=layer_decay, **arguments
        )
    except Exception as error:  # each fails in its own way, such as for a package that is not there
        raise UserError(f"`optimizer` {name} cannot be made: {first_line(error)}") from error


def layer_decay_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Groups with `lr_scale`, a power of `layer_decay` that grows with the distance from the head."""
    exempt = getattr(model, "no_weight_decay", set)()
    return _timm_optim().param_groups_layer_decay(
        model, weight_decay, no_weight_decay_list=exempt, layer_decay=layer_decay
    )


def _timm_optim() -> Any:
    ensure_torchvision_ops()
    from timm import optim

    return optim
