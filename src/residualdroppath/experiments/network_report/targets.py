"""What is analysed: a trained run, a file of weights, or a network by name with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ...core.discovery.found import NoResidualBranchError
from ...core.residual_drop_path import ResidualDropPath
from ...data.identity import require_trained_on
from ...data.images import ImageData
from ...data.load import load_data
from ...data.request import NAMED_SETS, Request
from ...errors import UserError, first_line
from ...models.classifier import make_classifier
from ...records.tensors import read_about, read_described
from ...training.description import NetworkDescription, parse_description
from ...training.recipe import Recipe, TrainConfig, checked, read_config
from ...training.run import cuts_of, load_config_data
from ...training.starting_weights import weights_file
from ...training.summaries import name_a_run
from .config import AnalyzeConfig

Kind = Literal["run", "file", "random"]
# A run is measured on images that it was neither trained nor chosen on, as its own recipe cuts them.
CUTS = ("data", "data_dir", "image_size", "validation_fraction", "train_size", "split_seed")

KEPT = "the share of answers that stay is given instead"
RANDOM_WEIGHTS = f"the weights are random, so answers are at chance; {KEPT}"


@dataclass(frozen=True)
class Target:
    """A network that is named, not made yet."""

    name: str
    kind: Kind
    recipe: TrainConfig | None = None
    about: NetworkDescription | None = None  # of what a run wrote since version 0.1.0


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode; `no_accuracy` says why its answers are not held against labels, if so."""

    title: str
    kind: Kind
    method: str | None
    rdp: ResidualDropPath
    image_size: int
    channels: int
    no_accuracy: str | None
    statistics: tuple[list[float], list[float]] | None = None  # that it normalises by, if they are known

    @property
    def model(self) -> nn.Module:
        return self.rdp.model


def find_target(name: str, config: AnalyzeConfig) -> Target:
    """What a name means: nothing is loaded yet. Raises `UserError` for a folder or file that is none of the three."""
    path = Path(name)
    if path.is_dir():
        if not (path / "config.yaml").is_file() or (path / "summary.json").is_file() or (path / "costs.json").is_file():
            hint = name_a_run(path) or "name the folder of an rdp train"
            raise UserError(f"`target` {name} is not the folder of one run; {hint}.")
        return Target(name, "run", read_config(TrainConfig, path / "config.yaml"), _description(path))
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise UserError(f"`target` {name} is not there; check the path.")
        if config.model is not None:
            return Target(name, "file")
        return _described_file(path)
    if path.is_file():
        raise UserError(f"`target` must be a run folder, a model name or a .safetensors file, got the file {name}.")
    return Target(name, "random")


def load_images(targets: list[Target], config: AnalyzeConfig) -> ImageData:
    """The data of the first run, or what the options name; raises `UserError` if the runs disagree."""
    recipes = [target.recipe for target in targets if target.recipe is not None]
    if config.data is None and len(recipes) == 2:
        first, second = recipes
        if names := [name for name in CUTS if getattr(first, name) != getattr(second, name)]:
            differences = ", ".join(f"{name} ({getattr(first, name)} and {getattr(second, name)})" for name in names)
            raise UserError(
                f"`compare` needs runs on the same images, these differ in {differences}; choose --data for both."
            )
    if recipes and config.data is None:
        recipe = recipes[0]
        about = next(target.about for target in targets if target.recipe is not None)
        size = recipe.image_size or (about.image_size if about else None)
        changes = {"data_dir": config.data_dir or recipe.data_dir, "image_size": size}
        data = load_config_data(recipe.model_copy(update=changes))
        for target in targets:
            _require_unchanged(target, recipe, data)
        return data
    name = config.data or Recipe().data
    size = config.image_size or (recipes[0].image_size if recipes else None)
    request = Request(
        data=name,
        data_dir=config.data_dir or Recipe().data_dir,
        label_column=config.label_column,
        image_column=config.image_column,
        # Images of a folder may differ in size; those of a named set are resized batch by batch.
        image_size=None if name in NAMED_SETS else size,
    )
    return load_data(request, split_seed=config.seed)


def _require_unchanged(target: Target, recipe: TrainConfig, data: ImageData) -> None:
    """Raise `UserError` if a run was trained on other data; one of another cut or size cannot be compared here."""
    about = target.about
    if target.recipe is None or about is None or about.image_size != data.image_size:
        return
    if cuts_of(target.recipe) == cuts_of(recipe):
        require_trained_on(about.data, data)


def load_network(target: Target, config: AnalyzeConfig, data: ImageData, device: torch.device) -> Network:
    """Make the network, load its weights, and find its branches."""
    recipe, about = target.recipe, target.about
    size = config.image_size or (recipe and recipe.image_size) or data.image_size
    classes = config.num_classes or data.num_classes
    name = recipe.model if recipe else (config.model or target.name if target.kind == "file" else target.name)
    depth, width = (recipe.depth, recipe.width) if recipe else (config.depth, config.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        made = make_classifier(
            name,
            in_channels=about.channels if about else data.channels,
            num_classes=classes,
            image_size=size,
            depth=depth,
            width=width,
            model_options=recipe.model_options if recipe else None,
            tagged=recipe is not None and recipe.pretrained,
        )
    if target.kind != "random":
        path = Path(target.name)
        file = path if target.kind == "file" else weights_file(path)
        _load(made.model, read_described(file)[0], target.name)
    try:
        rdp = ResidualDropPath(made.model.to(device).eval(), 0.0)
    except NoResidualBranchError as error:
        raise UserError(
            f"{name} has no residual branch to analyse; `rdp branches {name}` tells what was looked for."
        ) from error
    no_accuracy = None
    if target.kind == "random":
        no_accuracy = RANDOM_WEIGHTS
    elif classes != data.num_classes:
        no_accuracy = f"the network has {classes} outputs and the data {data.num_classes} classes; {KEPT}"
    title = f"{recipe.method}, seed {recipe.seed}" if recipe and target.kind == "run" else target.name
    if target.kind == "random":
        title += " (random weights)"
    return Network(
        title=title, kind=target.kind, method=recipe.method if recipe else None, rdp=rdp, image_size=size,
        channels=made.channels, no_accuracy=no_accuracy,
        statistics=(list(about.mean), list(about.deviation)) if about else None,
    )  # fmt: skip


def _description(folder: Path) -> NetworkDescription | None:
    """What the weights of a run say of themselves, if there are any yet."""
    try:
        found = read_described(weights_file(folder))[1]
    except UserError:  # told when the weights are read
        return None
    return None if found is None else parse_description(found, str(folder))


def _described_file(path: Path) -> Target:
    """Of weights that a run wrote, which say what network and images they are of."""
    found = read_about(path)
    if found is None:
        raise UserError(f"`model` must say which network {path} holds, for example --model resnet50d.")
    about = parse_description(found, str(path))
    if about.pruned:
        raise UserError(f"{path} is of a pruned network, which is not analysed; name the run, or the whole network.")
    return Target(str(path), "file", checked(lambda: TrainConfig.model_validate(about.recipe), str(path)), about)


def _load(model: nn.Module, weights: dict[str, Any], where: str) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        reason = " ".join(lines[1].split()) if len(lines) > 1 else first_line(error)
        raise UserError(
            f"The weights of {where} do not fit the network ({reason[:200]}); check `model`, `depth`, `width`, "
            "`num_classes` and `image_size`."
        ) from error
