"""Pretrained weights of timm by their tag, read and adapted by timm's own code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import UserError, first_line
from .find import library_of, with_image_size
from .spec import quiet
from .torchvision_ops import ensure_torchvision_ops


@dataclass(frozen=True)
class PretrainedConfig:
    """What timm notes of pretrained weights: the images that they were trained on, 0 to 1 for pixels 0 to 255."""

    name: str  # with the tag, also where it was left out
    image_size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def pretrained_config(name: str) -> PretrainedConfig:
    """Of a timm name, with a tag or without, which stands for timm's default. Nothing is downloaded."""
    if library_of(name) != "timm":
        raise UserError(
            f"`pretrained` goes with a timm name such as resnet18.a1_in1k, got `model` {name}; or give a file as "
            "`weights`."
        )
    own_name = name.removeprefix("timm/")
    ensure_torchvision_ops()
    with quiet():
        from timm.models import get_pretrained_cfg, is_model, list_pretrained
    architecture = own_name.partition(".")[0]
    try:
        found = get_pretrained_cfg(own_name, allow_unregistered=False) if is_model(own_name) else None
    except RuntimeError:  # no such tag
        found = None
    if found is None or not found.has_weights:
        with quiet():
            known = list_pretrained(f"{architecture}.*") if is_model(own_name) else []
        hint = f"known are {', '.join(known[:6])}" if known else "check the name"
        raise UserError(f"`pretrained`: timm has no weights called {own_name}; {hint}.")
    return PretrainedConfig(
        name=f"{architecture}.{found.tag}" if found.tag else architecture,
        image_size=int(found.input_size[-1]),
        mean=tuple(found.mean),
        deviation=tuple(found.std),
    )


def pretrained_state(config: PretrainedConfig, image_size: int, model_options: Mapping[str, Any]) -> dict[str, Tensor]:
    """All tensors of the pretrained network, for its own channels and classes, and images of `image_size`.

    Downloaded by timm unless it has them. Raises `UserError` if that fails or if they do not fit.
    """
    with quiet():
        import timm

    def make(**options: Any) -> nn.Module:
        return timm.create_model(config.name, pretrained=True, **options)

    try:
        with quiet():
            return with_image_size(make, dict(model_options), [("img_size", image_size)]).state_dict()
    except Exception as error:  # of the network, of a cache, or of a file in it
        raise UserError(
            f"The pretrained weights {config.name} could not be loaded ({first_line(error)}); check the network and "
            "`model_options`, or give a file as `weights`."
        ) from error
