"""The images that networks are measured on, made ready batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...data.augment import channel_statistics, normalise, with_channels
from ...data.images import ImageData, Split
from ...errors import UserError
from .config import FEWEST_SAMPLES, AnalyzeConfig
from .targets import Network

OF_TRAINING = {"probes", "reconstruction"}  # measures that are fitted on training images


@dataclass(frozen=True)
class Sample:
    """Some images of one part, in a seeded random order."""

    split: Split
    index: Tensor
    statistics: tuple[list[float], list[float]]
    batch_size: int

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Tensor]:
        """Places of the images of each batch; the last one may be smaller, but not below four."""
        parts = list(self.index.split(self.batch_size))
        if len(parts) > 1 and len(parts[-1]) < 4:
            parts[-2:] = [torch.cat(parts[-2:])]
        return iter(parts)

    @property
    def num_batches(self) -> int:
        return len(list(iter(self)))

    def first(self, count: int) -> Sample:
        return replace(self, index=self.index[:count])

    def batches(self, network: Network, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs (float[batch, channels, size, size] as the network takes them, int64[batch])."""
        statistics = network.statistics or self.statistics
        mean, deviation = (torch.tensor(values, device=device) for values in statistics)
        for images, labels in self.split.batches(list(self)):
            images = resized(images.to(device), network.image_size)
            yield with_channels(normalise(images, mean, deviation), network.channels), labels


def draw_samples(data: ImageData, config: AnalyzeConfig) -> tuple[Sample, Sample]:
    """Held-out images of the part that is asked for, and training images to fit probes on.

    Raises `UserError` where a part has too few.
    """
    statistics = channel_statistics(data.train.source)
    if config.part == "test":
        data.require_test()
    held_out = data.validation if config.part == "validation" else data.test
    wanted = ((config.part, held_out, config.samples), ("train", data.train, config.probe_samples))
    made = []
    for place, (part, split, count) in enumerate(wanted):
        if len(split) < FEWEST_SAMPLES and (part != "train" or OF_TRAINING & set(config.measures)):
            instead = "another `part`" if part != "train" else "`measures` without probes and reconstruction"
            raise UserError(
                f"`data` must have at least {FEWEST_SAMPLES} images to measure on, got {len(split)} in the {part} "
                f"part; name larger data, or {instead}."
            )
        order = np.random.default_rng([config.seed, place]).permutation(len(split))[:count]
        made.append(Sample(split, torch.from_numpy(order), statistics, config.batch_size))
    return made[0], made[1]


def resized(images: Tensor, size: int) -> Tensor:
    """Images resized on the fly; as they are if they have the size."""
    if images.shape[-1] == size and images.shape[-2] == size:
        return images
    return F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True).clamp(0, 255)
