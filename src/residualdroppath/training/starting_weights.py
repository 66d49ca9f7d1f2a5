"""Weights that a training starts from: a run, a file, or pretrained ones of timm; what of them fits a network."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.parts import shortened
from ..errors import UserError, first_line
from ..models.pretrained import PretrainedConfig, pretrained_config, pretrained_state
from ..records.paths import expanded
from ..records.tensors import digest, read_about, read_described
from .description import NetworkDescription, parse_description
from .recipe import Recipe
from .run_folder import RunFolder
from .summaries import is_run, name_a_run

PICKLED = (".pth", ".pt", ".bin", ".tar", ".ckpt")


@dataclass(frozen=True)
class StartingWeights:
    """Tensors by name with their digest; of the images they were trained on, as far as it is known, size and scale."""

    source: str
    state: Mapping[str, Tensor]
    sha256: str
    image_size: int | None = None
    mean: tuple[float, ...] | None = None  # of pixel values from 0 to 255
    deviation: tuple[float, ...] | None = None
    classes: tuple[str, ...] = ()

    def channels(self, of_images: int) -> int:
        """Channels of a network for such images: grey ones are repeated for weights that were trained on colour."""
        return len(self.mean) if self.mean is not None and of_images == 1 else of_images

    def statistics(self, channels: int) -> tuple[list[float], list[float]] | None:
        """Mean and deviation, if they are known for so many channels."""
        if self.mean is None or self.deviation is None or len(self.mean) != channels:
            return None
        return list(self.mean), list(self.deviation)

    def load_into(self, model: nn.Module, classes: Sequence[str]) -> str:
        """Load what fits; the line that says what is loaded, what is new, and what was not used."""
        fit = fitting(model, self.state)
        if not any(self.state[name].dim() >= 2 for name in fit.loaded):
            raise UserError(
                f"`weights`: nothing of {self.source} fits the network (no kernel or matrix of the same name and "
                "shape); check `model` and its options."
            )
        model.load_state_dict({name: self.state[name] for name in fit.loaded}, strict=False)
        line = f"weights of {self.source}: {len(fit.loaded):,} of {len(model.state_dict()):,} tensors loaded"
        if fit.new:
            line += f"; new: {shortened(fit.new)}"
        if fit.unused:
            line += f"; without a place here: {shortened(fit.unused)}"
        if self.classes and tuple(classes) != self.classes and len(classes) == len(self.classes):
            line += "; the classes have other names or another order there, as many, so the head is kept"
        return line


@dataclass(frozen=True)
class Fit:
    """A network's tensors that are loaded, those that stay new, and those of the weights that it does not have."""

    loaded: list[str]
    new: list[str]
    unused: list[str]


def fitting(model: nn.Module, state: Mapping[str, Tensor]) -> Fit:
    """By name and shape; a layer of which one tensor has another shape stays new as a whole, such as another head."""
    own = model.state_dict()
    of_other_shape = {name for name, value in own.items() if name in state and state[name].shape != value.shape}
    layers = {path for path, module in model.named_modules() if path and not any(True for _ in module.children())}
    anew = {name.rpartition(".")[0] for name in of_other_shape} & layers
    loaded = [
        name for name in own if name in state and name not in of_other_shape and name.rpartition(".")[0] not in anew
    ]
    new = [
        f"{name} {list(own[name].shape)} (there {list(state[name].shape)})" if name in of_other_shape else name
        for name in own
        if name not in loaded
    ]
    return Fit(loaded, new, unused=[name for name in state if name not in own])


def starting_weights(recipe: Recipe, image_size: int) -> StartingWeights | None:
    """Those that a recipe names, read for images of `image_size`; None for random ones."""
    if recipe.pretrained:
        config = pretrained_config(recipe.model)
        state = pretrained_state(config, image_size, recipe.model_options)
        mean, deviation = _of_pixels(config)
        return StartingWeights(config.name, state, digest(state), config.image_size, mean, deviation)
    if recipe.weights is None:
        return None
    state, about = _read(_file(recipe.weights))
    if about is None:
        return StartingWeights(str(recipe.weights), state, digest(state))
    return StartingWeights(
        str(recipe.weights), state, digest(state), about.image_size, about.mean, about.deviation, about.classes
    )


def default_image_size(recipe: Recipe) -> int | None:
    """That of the images which the weights to start from were trained on, if it is known."""
    if recipe.pretrained:
        return pretrained_config(recipe.model).image_size
    if recipe.weights is None or (file := _file(recipe.weights)).suffix != ".safetensors":
        return None
    about = read_about(file)
    return None if about is None else parse_description(about, str(file)).image_size


def weights_digest(recipe: Recipe) -> str | None:
    """Of the content of the file or run that a recipe starts from."""
    if recipe.weights is None:
        return None
    file = _file(recipe.weights)
    found = file.stat()
    return _digest_once(file, found.st_mtime_ns, found.st_size)


def _of_pixels(config: PretrainedConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(255 * value for value in config.mean), tuple(255 * value for value in config.deviation)


def _file(path: Path) -> Path:
    path = expanded(path)
    file = weights_file(path) if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"`weights` {path} is not there; name a run folder, a .safetensors file or a .pth file.")
    return file


def weights_file(folder: Path) -> Path:
    """The final weights of a run, or those of its last checkpoint. Raises `UserError` if there are none."""
    if not is_run(folder) and (runs := name_a_run(folder)):
        raise UserError(f"{folder} is not the folder of one run; {runs}.")
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is not the folder of a run (no config.yaml); name one, or a file of weights.")
    return RunFolder(folder).weights_file()


@functools.lru_cache(maxsize=64)
def _digest_once(path: Path, modified: int, size: int) -> str:
    """Read once for as long as the file stays the same."""
    return digest(_read(path)[0])


def _read(path: Path) -> tuple[dict[str, Tensor], NetworkDescription | None]:
    """Tensors and, if it is there, what is known of them."""
    if path.suffix == ".safetensors":
        state, about = read_described(path)
        return state, None if about is None else parse_description(about, str(path))
    if path.suffix not in PICKLED:
        raise UserError(
            f"`weights` must be a run folder, a .safetensors file or a {', '.join(PICKLED)} file, got {path}."
        )
    return _read_pickled(path), None


def _read_pickled(path: Path) -> dict[str, Tensor]:
    """A state dict, or the one in a checkpoint of timm or torchvision. Runs no code from the file."""
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way that its readers know
        raise UserError(
            f"`weights` {path} cannot be read without running code from it ({first_line(error)}); save its state_dict "
            "alone."
        ) from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):  # in the order of timm
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()) or not found:
        raise UserError(f"`weights` {path} holds no state dict of tensors; save its state_dict alone.")
    return {_without_wrappers(str(name)): value for name, value in found.items()}


def _without_wrappers(name: str) -> str:
    """A name without what DDP and torch.compile put before it."""
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        name = name.removeprefix(prefix)
    return name
