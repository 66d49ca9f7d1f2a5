"""Networks of timm, torchvision and Hugging Face transformers by name: the one place where names are understood."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ..errors import UserError, did_you_mean
from .hugging_face import find_hugging_face
from .small_resnet import SmallResNet
from .spec import Inputs, ModelSpec, quiet
from .torchvision_ops import ensure_torchvision_ops

SMALL_RESNET = "small_resnet"
LIBRARIES = ("timm", "torchvision", "transformers")
LOADS_WEIGHTS = ("pretrained", "weights", "weights_backbone", "checkpoint_path")


def find_model(
    name: str,
    options: dict[str, Any] | None = None,
    *,
    image_size: int | None = None,
    sequence_length: int | None = None,
) -> ModelSpec:
    """The network called `name`; nothing is made or downloaded yet.

    Args:
        name: `small_resnet`, a timm name with or without `timm/`, `torchvision/NAME`, or `transformers/CLASS`.
        options: for the function that makes the network, or for the config of a class of transformers.
        image_size: pixels a side; default: the network's own.
        sequence_length: tokens of a text, samples or frames of a sound; default: the network's own, at most 128 tokens.

    Raises:
        UserError: the name is unknown, its library is not installed, or the options are wrong.
    """
    options = dict(options or {})
    if refused := [option for option in LOADS_WEIGHTS if option in options]:
        raise UserError(f"`options`: `{refused[0]}` loads weights, which decide nothing here; leave it out.")
    library, own_name = library_of(name), name.rpartition("/")[2]
    if library == "transformers":
        return find_hugging_face(own_name, options, image_size, sequence_length)
    if sequence_length is not None:
        raise UserError(f"`sequence_length` does not go with {name}, which takes images.")
    if library == SMALL_RESNET:
        return _small_resnet(options, image_size)
    ensure_torchvision_ops()
    return (_torchvision if library == "torchvision" else _timm)(own_name, options, image_size)


def library_of(name: str) -> str:
    """`timm`, `torchvision`, `transformers`, or `small_resnet` for itself. Raises `UserError` as `find_model` does."""
    if name == SMALL_RESNET:
        return SMALL_RESNET
    library = name.rpartition("/")[0] if "/" in name else "timm"
    if library not in LIBRARIES:
        raise UserError(f"`model` must be NAME or timm/NAME, torchvision/NAME or transformers/CLASS, got {name!r}.")
    require_library(library)
    return library


def require_library(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        extra = "transformers" if library == "transformers" else "train"
        raise UserError(f"{library} is not installed: pip install 'residualdroppath[{extra}]'.")


def with_image_size(
    make: Callable[..., nn.Module], options: dict[str, Any], sizes: Iterable[tuple[str, Any]]
) -> nn.Module:
    """`make(**options)`, given the image size by the first of these (option, value) that it knows, if any."""
    for option, value in sizes:
        if option in options:
            break
        try:
            return make(**options, **{option: value})
        except TypeError as error:  # most networks take any size, and have no such option
            if option not in str(error):
                raise
    return make(**options)


def first_arguments(model: nn.Module, count: int = 1) -> list[str]:
    """Names of the first parameters of the forward."""
    return list(inspect.signature(model.forward).parameters)[:count]


def _small_resnet(options: dict[str, Any], image_size: int | None) -> ModelSpec:
    channels = options.setdefault("in_channels", 3)
    size = image_size or 32

    def make() -> nn.Module:
        try:
            return SmallResNet(**options)
        except ValueError as error:
            raise UserError(str(error)) from error

    return ModelSpec(SMALL_RESNET, make, lambda _, rows: [{"x": ((rows, channels, size, size), torch.float32)}])


def _timm(name: str, options: dict[str, Any], image_size: int | None) -> ModelSpec:
    with quiet():
        import timm
    if not timm.is_model(name):
        hint = did_you_mean(name, [SMALL_RESNET, *timm.list_models()])
        elsewhere = "" if "mean" in hint else " Other libraries: torchvision/NAME, transformers/CLASS."
        raise UserError(f"`model` must be {SMALL_RESNET} or a timm model, got {name!r}{hint}{elsewhere}")

    def make(**options: Any) -> nn.Module:
        return timm.create_model(name, pretrained=False, **options)

    def inputs(model: nn.Module, rows: int) -> list[Inputs]:
        own: Any = getattr(model, "pretrained_cfg", None) or {}
        channels, *sides = own.get("input_size") or (3, 224, 224)
        sides = [image_size, image_size] if image_size else sides
        return [{first_arguments(model)[0]: ((rows, options.get("in_chans", channels), *sides), torch.float32)}]

    sizes = [("img_size", image_size)] if image_size else []
    return ModelSpec(f"timm/{name}", lambda: with_image_size(make, options, sizes), inputs)


def _torchvision(name: str, options: dict[str, Any], image_size: int | None) -> ModelSpec:
    with quiet():
        from torchvision import models
    if name not in models.list_models():
        hint = did_you_mean(name, models.list_models(), "torchvision/")
        raise UserError(f"`model` must be a torchvision model after torchvision/, got {name!r}{hint}")
    builder = models.get_model_builder(name)
    no_weights = {key: None for key in ("weights", "weights_backbone") if key in inspect.signature(builder).parameters}
    try:
        weights: Any = next(iter(models.get_model_weights(name)), None)
    except ValueError:  # none were trained
        weights = None
    crop = getattr(getattr(weights, "transforms", None), "keywords", {}).get("crop_size", 224)
    size = image_size or (crop if isinstance(crop, int) else crop[0])

    def make(**options: Any) -> nn.Module:
        return builder(**no_weights, **options)

    def inputs(model: nn.Module, rows: int) -> list[Inputs]:
        if ".video" in builder.__module__:
            return [{first_arguments(model)[0]: ((rows, 3, 16, size, size), torch.float32)}]
        if ".optical_flow" in builder.__module__:
            return [dict.fromkeys(first_arguments(model, 2), ((rows, 3, size, size), torch.float32))]
        return [{first_arguments(model)[0]: ((rows, 3, size, size), torch.float32)}]

    sides = (image_size, image_size)
    sizes = [("image_size", image_size), ("input_size", sides), ("spatial_size", sides)] if image_size else []
    return ModelSpec(f"torchvision/{name}", lambda: with_image_size(make, options, sizes), inputs)
