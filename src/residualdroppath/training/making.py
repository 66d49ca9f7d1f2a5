"""The network that a recipe trains, as it is before the first iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..data.augment import channel_statistics
from ..data.images import ImageData
from ..models.classifier import Classifier, make_classifier
from .frozen_parts import FrozenParts
from .recipe import Recipe, TrainConfig
from .runtime import derived_seed
from .starting_weights import StartingWeights, starting_weights


@dataclass(frozen=True)
class NetworkToTrain:
    """A network for images of so many `channels`, normalised by `statistics` (mean and deviation, of pixels 0 to 255).

    `start` is what is known of the weights that were loaded, if they are not random, `weights_line` which fitted.
    """

    model: nn.Module
    channels: int
    statistics: tuple[list[float], list[float]]
    frozen: FrozenParts
    start: StartingWeights | None
    weights_line: str


def make_network(
    config: TrainConfig, data: ImageData, with_synchronised_norms: Callable[[nn.Module], nn.Module]
) -> NetworkToTrain:
    """On the CPU; random weights are a function of the recipe's seed alone. Raises `UserError`."""
    start = starting_weights(config, data.image_size)
    torch.manual_seed(derived_seed(config.seed_of("init"), "model"))
    made = classifier_of(config, data, data.channels if start is None else start.channels(data.channels))
    known = None
    line = "random weights"
    if start is not None:
        line = start.load_into(made.model, data.classes)
        known = start.statistics(made.channels)
        start = replace(start, state={})  # loaded: their memory is free
    model = with_synchronised_norms(made.model) if config.sync_batch_norm else made.model
    return NetworkToTrain(
        model,
        made.channels,
        known or channel_statistics(data.train.source),
        FrozenParts(model, config.freeze_modules),
        start,
        line,
    )


def classifier_of(config: Recipe, data: ImageData, channels: int) -> Classifier:
    """The recipe's network, with random weights, for the classes of some data and images of so many channels."""
    return make_classifier(
        config.model,
        in_channels=channels,
        num_classes=data.num_classes,
        image_size=data.image_size,
        depth=config.depth,
        width=config.width,
        model_options=config.model_options,
        tagged=config.pretrained,
    )
