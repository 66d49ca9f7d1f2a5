"""Networks of timm, torchvision and Hugging Face transformers by name, with what their forward takes."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, first_line
from .create import SMALL_RESNET
from .small_resnet import SmallResNet
from .torchvision_ops import ensure_torchvision_ops

# Keyword arguments of one forward: shape and dtype of each tensor.
Inputs = dict[str, tuple[tuple[int, ...], torch.dtype]]
LIBRARIES = ("timm", "torchvision", "transformers")
LOADS_WEIGHTS = ("pretrained", "weights", "weights_backbone", "checkpoint_path")
LARGEST_IN_MEMORY = 500_000_000  # parameters; 2 GB


@dataclass(frozen=True)
class NamedNetwork:
    """How to make a network, and what to try as inputs of the network made: for a batch size, the fullest first."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[nn.Module, int], list[Inputs]]

    def build(self) -> nn.Module:
        """On the meta device, without memory or time for weights; on the CPU if it cannot be made there."""
        try:
            return self.build_on("meta")
        except Exception:  # each network fails in its own way: here mostly by reading a number off a tensor
            return self.build_on("cpu")

    def build_on(self, device: str) -> nn.Module:
        """Freshly initialised. Raises `UserError` if it cannot be made."""
        try:
            with quiet(), torch.device(device):
                return self.make()
        except Exception as error:
            raise UserError(f"{self.name} cannot be made with these options: {first_line(error)}") from error


def find_network(
    name: str,
    options: dict[str, Any] | None = None,
    *,
    image_size: int | None = None,
    sequence_length: int | None = None,
) -> NamedNetwork:
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
    library, _, own_name = name.rpartition("/")
    if library not in ("", *LIBRARIES):
        raise UserError(f"`model` must be NAME or timm/NAME, torchvision/NAME or transformers/CLASS, got {name!r}.")
    if library == "transformers":
        require_library(library)
        from .hugging_face import find_hugging_face

        return find_hugging_face(own_name, options, image_size, sequence_length)
    if sequence_length is not None:
        raise UserError(f"`sequence_length` does not go with {name}, which takes images.")
    if name == SMALL_RESNET:
        return _small_resnet(options, image_size)
    require_library(library or "timm")
    ensure_torchvision_ops()
    return _torchvision(own_name, options, image_size) if library == "torchvision" else _timm(name, options, image_size)


def tensors(inputs: Inputs, device: str) -> dict[str, Tensor]:
    """Zeros of those shapes: valid as pixels, samples and tokens."""
    return {name: torch.zeros(shape, dtype=dtype, device=device) for name, (shape, dtype) in inputs.items()}


def require_library(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        extra = "transformers" if library == "transformers" else "train"
        raise UserError(f"{library} is not installed: pip install 'residualdroppath[{extra}]'.")


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of a sentence about an unknown name."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    return f"; did you mean {' or '.join(prefix + by_lower[lower] for lower in close)}?" if close else "."


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Libraries print and warn while they make and run networks; here that is noise."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def with_image_size(
    make: Callable[..., nn.Module], options: dict[str, Any], sizes: Iterable[tuple[str, Any]]
) -> nn.Module:
    """`make(**options)`, told the image size by the first of these (option, value) that it knows, if any."""
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


def _small_resnet(options: dict[str, Any], image_size: int | None) -> NamedNetwork:
    channels = options.setdefault("in_channels", 3)
    size = image_size or 32
    return NamedNetwork(SMALL_RESNET, lambda: SmallResNet(**options), lambda _, rows: [_image(rows, channels, size)])


def _timm(name: str, options: dict[str, Any], image_size: int | None) -> NamedNetwork:
    with quiet():
        import timm
    own_name = name.removeprefix("timm/")
    if not timm.is_model(own_name):
        hint = did_you_mean(own_name, [SMALL_RESNET, *timm.list_models()])
        elsewhere = "" if "mean" in hint else " Other libraries: torchvision/NAME, transformers/CLASS."
        raise UserError(f"`model` must be {SMALL_RESNET} or a timm model, got {own_name!r}{hint}{elsewhere}")

    def make(**options: Any) -> nn.Module:
        return timm.create_model(own_name, pretrained=False, **options)

    def inputs(model: nn.Module, rows: int) -> list[Inputs]:
        own: Any = getattr(model, "pretrained_cfg", None) or {}
        channels, *sides = own.get("input_size") or (3, 224, 224)
        sides = [image_size, image_size] if image_size else sides
        return [{first_arguments(model)[0]: ((rows, options.get("in_chans", channels), *sides), torch.float32)}]

    sizes = [("img_size", image_size)] if image_size else []
    return NamedNetwork(f"timm/{own_name}", lambda: with_image_size(make, options, sizes), inputs)


def _torchvision(name: str, options: dict[str, Any], image_size: int | None) -> NamedNetwork:
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
    return NamedNetwork(f"torchvision/{name}", lambda: with_image_size(make, options, sizes), inputs)


def _image(rows: int, channels: int, size: int) -> Inputs:
    return {"x": ((rows, channels, size, size), torch.float32)}
