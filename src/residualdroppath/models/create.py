"""`create_model`: a network by name."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import nn

from ..errors import UserError, first_line
from .small_resnet import SmallResNet
from .torchvision_ops import ensure_torchvision_ops

SMALL_RESNET = "small_resnet"


def create_model(
    name: str, *, in_channels: int, num_classes: int, image_size: int, depth: int = 20, width: int = 16
) -> nn.Module:
    """A freshly initialised network for images float[batch, in_channels, image_size, image_size].

    Args:
        name: `small_resnet` (a CIFAR-style ResNet of `depth` and `width`) or any timm model.

    Raises:
        UserError: the name is unknown, or the network does not take such images.
    """
    if name == SMALL_RESNET:
        try:
            return SmallResNet(depth, width, in_channels=in_channels, num_classes=num_classes)
        except ValueError as error:
            raise UserError(str(error)) from error
    model = _timm_model(name, in_channels, num_classes, image_size)
    # Networks made for any size may still run out of pixels on the way; that shows only when they run.
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, in_channels, image_size, image_size))
    except Exception as error:  # each network fails in its own way
        raise UserError(
            f"`model` {name} does not take {image_size}x{image_size} images ({first_line(error)}); "
            "choose another `image_size` or `model`."
        ) from error
    return model.train()


def _timm_model(name: str, in_channels: int, num_classes: int, image_size: int) -> nn.Module:
    ensure_torchvision_ops()
    import timm

    if not timm.is_model(name):
        close = difflib.get_close_matches(name, [SMALL_RESNET, *timm.list_models()], n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise UserError(f"`model` must be {SMALL_RESNET} or a timm model, got {name!r}{hint}")
    options: dict[str, Any] = {"in_chans": in_channels, "num_classes": num_classes}
    try:
        return timm.create_model(name, **options, img_size=image_size)
    except TypeError as error:  # most networks take any size, and have no such option
        if "img_size" not in str(error):
            raise UserError(f"`model` {name} cannot be made with {options}: {first_line(error)}") from error
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"`model` {name} cannot be made for {image_size}x{image_size} images: {first_line(error)}"
        ) from error
    return timm.create_model(name, **options)
