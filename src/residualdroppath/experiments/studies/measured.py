"""What the measures of a trained network have in common: its images and its branches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ...core.residual_drop_path import ResidualDropPath
from ...data.images import Split
from ...training.trainer import Trainer

Batches = list[tuple[Tensor, Tensor]]


def first_images(trainer: Trainer, split: Split, limit: int) -> Batches:
    """The first images, those of all classes mixed, prepared: (float[batch, channels, size, size], int64[batch])."""
    indices = torch.arange(min(limit, len(split))).split(4 * trainer.config.batch_size)
    return [(trainer.prepare(images.to(trainer.device)), labels) for images, labels in split.batches(list(indices))]


@contextmanager
def branches_of(trainer: Trainer) -> Iterator[ResidualDropPath]:
    """What the network was trained with; one for the time of the measure where it was trained without."""
    if trainer.rdp is not None:
        yield trainer.rdp
        return
    rdp = ResidualDropPath(trainer.model, 0.0)
    try:
        yield rdp
    finally:
        rdp.remove()
