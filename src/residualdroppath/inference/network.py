"""A trained network, loaded from the folder of a run or from a file of weights, with all that using it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.pruning import prune
from ..data.augment import channel_statistics, normalise, with_channels
from ..data.identity import differences, identity
from ..errors import UserError, first_line
from ..models.classifier import make_classifier
from ..records.files import read_json
from ..records.tensors import read_described
from ..training.description import NetworkDescription, describe, parse_description
from ..training.making import classifier_of
from ..training.recipe import TrainConfig, checked, read_config
from ..training.run import load_config_data
from ..training.runtime import pick_device
from ..training.starting_weights import weights_file


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in evaluation mode; `file` holds its weights."""

    file: Path
    model: nn.Module
    about: NetworkDescription
    device: torch.device

    @property
    def recipe(self) -> TrainConfig:
        """That it was trained by."""
        return checked(lambda: TrainConfig.model_validate(self.about.recipe), str(self.file))

    def prepare(self, images: Tensor) -> Tensor:
        """uint8[batch, channels, size, size] as the network takes them."""
        mean, deviation = (
            torch.tensor(values, device=self.device) for values in (self.about.mean, self.about.deviation)
        )
        return with_channels(normalise(images.to(self.device), mean, deviation), self.about.channels)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """float32[batch, classes] for uint8[batch, channels, size, size]."""
        return self.model(self.prepare(images)).float()


def load_network(target: Path, device: str = "auto") -> TrainedNetwork:
    """From a run folder (final weights, or those of its last checkpoint) or a file of weights that a run wrote.

    No code from the file is run. Raises `UserError` for what is damaged, or says too little about itself.
    """
    where = pick_device(device)
    if not target.is_dir() and not target.is_file():
        raise UserError(
            f"{target} is not there, or no file; name the folder of a run or a .safetensors file that a run wrote."
        )
    file = weights_file(target) if target.is_dir() else target
    state, found = read_described(file)
    if found is not None:
        about = parse_description(found, str(file))
    elif target.is_dir():
        about = _of_older_run(target)
    else:
        raise UserError(
            f"{file} does not say what network its weights are of: it was written by other code or an earlier "
            "version; name the folder of its run."
        )
    model = make_network(about)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"The weights of {file} do not fit {about.model} ({first_line(error)}); was it made by another version of "
            "its library?"
        ) from error
    return TrainedNetwork(file, model.to(where).eval(), about, where)


def make_network(about: NetworkDescription) -> nn.Module:
    """The network described, with random weights; what was pruned is not there."""
    with torch.random.fork_rng(devices=[]):
        made = make_classifier(
            about.model,
            in_channels=about.channels,
            num_classes=len(about.classes),
            image_size=about.image_size,
            depth=about.depth,
            width=about.width,
            model_options=about.model_options,
            tagged=True,
        )
    return pruned(made.model.eval(), about, about.pruned)


def pruned(model: nn.Module, about: NetworkDescription, branches: tuple[str, ...]) -> nn.Module:
    """The network without some of its branches. Raises `UserError` for names that it does not have."""
    if not branches:
        return model
    try:
        device = next(model.parameters()).device
        return prune(model, branches, example=example_images(about, device=device)).eval()
    except ValueError as error:
        raise UserError(str(error).replace("`branches`", "`prune`").rstrip(".") + ".") from error


def example_images(about: NetworkDescription, rows: int = 2, device: torch.device | str = "cpu") -> Tensor:
    """float[rows, channels, size, size] as the network takes them: normal noise, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, about.channels, about.image_size, about.image_size, generator=generator).to(device)


def without_branches(network: TrainedNetwork, branches: tuple[str, ...]) -> TrainedNetwork:
    """The same network, pruned."""
    about = network.about.model_copy(update={"pruned": (*network.about.pruned, *dict.fromkeys(branches))})
    return replace(network, model=pruned(network.model, network.about, branches), about=about)


def _of_older_run(folder: Path) -> NetworkDescription:
    """What weights files did not hold yet, from the recipe of the run and its data, which must be there."""
    config = read_config(TrainConfig, folder / "config.yaml")
    data = load_config_data(config)
    noted = folder / "data.json"
    found = identity(data)
    if noted.is_file() and (different := differences(read_json(noted, dict[str, Any]), found)):
        raise UserError(f"The data of {folder} are not those it was trained on: they differ in {', '.join(different)}.")
    mean, deviation = channel_statistics(data.train.source)
    made = classifier_of(config, data, data.channels)
    return describe(config, data, found, channels=made.channels, mean=mean, deviation=deviation)
