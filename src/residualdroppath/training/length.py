"""How long a training is, from its recipe and the number of its images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UserError
from .controls import iterations_of_cycle
from .recipe import TrainConfig


@dataclass(frozen=True)
class Length:
    """Iterations that a batch is used for, and those of an epoch and in total; the last epoch may be cut."""

    per_batch: int
    per_epoch: int
    total: int

    @property
    def epochs(self) -> int:
        return math.ceil(self.total / self.per_epoch)


def length_of(config: TrainConfig, images: int, processes: int) -> Length:
    """Raises `UserError` for a batch larger than the data or too small to be shared, and for too long a warm-up."""
    batches = images // config.batch_size
    if batches < 1:
        raise UserError(f"`batch_size` must be at most the {images} training images, got {config.batch_size}.")
    if config.batch_size < (fewest := processes * config.accumulation):
        raise UserError(
            f"`batch_size` must be at least {fewest}, an image for each of {processes} processes and "
            f"{config.accumulation} parts (`accumulation`), got {config.batch_size}."
        )
    per_batch = iterations_of_cycle(config) if config.cycle == "same_batch" else 1
    per_epoch = batches * per_batch
    total = config.iterations or config.epochs * per_epoch
    if config.warmup_iterations is not None and config.warmup_iterations >= total:
        raise UserError(
            f"`warmup_iterations` must be less than the {total} iterations of this training, got "
            f"{config.warmup_iterations}; give fewer, or more `epochs`."
        )
    return Length(per_batch, per_epoch, total)
