"""`make_classifier`: any network by name, made for the images and classes at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, first_line
from .find import SMALL_RESNET, find_model, library_of
from .hugging_face import classifier_options
from .spec import quiet

OWN_DROP_PATH = {"timm": "drop_path_rate", "torchvision": "stochastic_depth_prob"}


class NoOwnDropPathError(Exception):
    """A rate for the drop path that a library has in its networks, and this one has none; the message names it."""


@dataclass(frozen=True)
class Classifier:
    """A network from images float[batch, channels, size, size] to logits float[batch, classes]."""

    model: nn.Module
    channels: int


def make_classifier(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    image_size: int,
    depth: int = 20,
    width: int = 16,
    own_drop_path_rate: float = 0.0,
    model_options: Mapping[str, Any] | None = None,
    tagged: bool = False,
) -> Classifier:
    """A freshly initialised network for images of `in_channels` channels and `image_size` pixels a side.

    Args:
        name: as for `find_model`.
        in_channels: if it is 1 and the network is made for three (all of torchvision), `Classifier.channels` is 3,
            and grey images are to be repeated.
        depth: of `small_resnet` alone, as `width`.
        own_drop_path_rate: of the drop path that timm or torchvision have in the network.
        model_options: further arguments of the function that makes the network, or values of its config.
        tagged: whether `name` may have the tag of pretrained weights, which are loaded by other code.

    Raises:
        UserError: the name is unknown or that of pretrained weights, or the network does not classify such images.
        NoOwnDropPathError: `own_drop_path_rate` is above 0, and the network has no drop path of its own.
    """
    library = library_of(name)
    if library == "timm" and "." in name and not tagged:
        plain, _, tag = name.partition(".")
        raise UserError(
            f"`model` {name} names pretrained weights ({tag}), and weights start random; add `pretrained` (of rdp "
            f"train), or name the network alone, {plain}."
        )
    options, channels = _options(library, name, in_channels, num_classes)
    if library == SMALL_RESNET:
        options |= {"depth": depth, "width": width}
    for option, value in (model_options or {}).items():
        if option in options or option in OWN_DROP_PATH.values():
            raise UserError(f"`model_options` must not hold {option!r}, which follows from the data or the method.")
        options[option] = value
    if channels != in_channels != 1:
        raise UserError(f"`model` {name} takes images of {channels} channels, got {in_channels}; choose another one.")
    option = OWN_DROP_PATH.get(library)
    if own_drop_path_rate and option is None:
        raise NoOwnDropPathError("it has no drop path of its own")
    own: dict[str, float] = {}
    if option is not None and (own_drop_path_rate or library == "torchvision"):
        own[option] = own_drop_path_rate  # timm's networks drop only if asked to, torchvision's unless asked not to
    model = _make(name, options, image_size, own)
    if library in ("torchvision", "transformers"):
        model.register_forward_hook(_logits_alone)
    _require_logits(model, name, (1, channels, image_size, image_size), num_classes)
    return Classifier(model.train(), channels)


def _options(library: str, name: str, in_channels: int, num_classes: int) -> tuple[dict[str, Any], int]:
    """The library's words for channels and classes, and the channels that the network takes."""
    if library == "transformers":
        return classifier_options(name.removeprefix("transformers/"), in_channels, num_classes)
    if library == "torchvision":
        return {"num_classes": num_classes}, 3
    return {"in_chans" if library == "timm" else "in_channels": in_channels, "num_classes": num_classes}, in_channels


def _make(name: str, options: dict[str, Any], image_size: int, own: dict[str, float]) -> nn.Module:
    """With the options `own` of the library's drop path; without them if the network has none and the rate is 0."""
    try:
        with quiet():
            return find_model(name, {**options, **own}, image_size=image_size).make()
    except UserError:
        raise
    except Exception as error:  # each network fails in its own way
        unknown = [option for option in own if isinstance(error, TypeError) and option in str(error)]
        if not unknown:
            size = f"{image_size}x{image_size}"
            raise UserError(f"`model` {name} cannot be made for {size} images: {first_line(error)}") from error
        if any(own.values()):
            raise NoOwnDropPathError(f"it has no {unknown[0]}") from error
    return _make(name, options, image_size, {})


def _logits_alone(model: nn.Module, inputs: Any, output: Any) -> Any:
    """transformers wraps logits in an output, torchvision in training where a network has further heads."""
    return getattr(output, "logits", output)


def _require_logits(model: nn.Module, name: str, shape: tuple[int, ...], num_classes: int) -> None:
    """Raises `UserError` if the network does not run on such images, or does not return logits."""
    size = f"{shape[-1]}x{shape[-1]}"
    # Networks made for any size may still run out of pixels on the way; that shows only when they run.
    try:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(shape))
    except Exception as error:  # each network fails in its own way
        raise UserError(
            f"`model` {name} does not take {size} images ({first_line(error)}); choose another `image_size` or `model`."
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (1, num_classes):
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(
            f"`model` {name} does not classify images: it must return logits [images, {num_classes}], got {found}; "
            "choose another `model`."
        )
