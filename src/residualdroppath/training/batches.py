"""The batches of an epoch: a pure function of its seed, from any of them on, whole or the rows of one process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.augment import draw_mirrored, draw_shifts, mirror, shift
from ..data.images import Split
from ..data.order import draw_order


@dataclass(frozen=True)
class Augmentation:
    """Random shifts by up to `crop_padding` pixels, and random mirroring."""

    crop_padding: int
    mirror: bool

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
        """What becomes of the images of a whole batch: its shifts, and which are mirrored."""
        shifts = draw_shifts(batch, self.crop_padding, generator) if self.crop_padding else None
        return shifts, draw_mirrored(batch, generator) if self.mirror else None

    def apply(self, images: Tensor, drawn: tuple[Tensor | None, Tensor | None], rows: slice) -> Tensor:
        """To those `rows` of the batch which `images` are."""
        shifts, mirrored = drawn
        if shifts is not None:
            images = shift(images, self.crop_padding, shifts[:, rows])
        return images if mirrored is None else mirror(images, mirrored[rows])


def rows_of(batch_size: int, process: int, processes: int) -> slice:
    """The rows of a batch that one of several processes computes; together all of them, in order."""
    return slice(batch_size * process // processes, batch_size * (process + 1) // processes)


def batches_of_epoch(
    split: Split,
    seed: int,
    batch_size: int,
    augmentation: Augmentation,
    device: torch.device,
    *,
    start: int = 0,
    rows: slice = slice(None),
    shuffle_buffer: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (uint8[batch, channels, size, size], int64[batch]) from batch number `start` on, no incomplete one.

    Draws of batches before are repeated, their images neither read nor decoded. Draws are those of whole batches, so
    that an image is augmented alike in however many processes.
    """
    generator = torch.Generator().manual_seed(seed)
    order = draw_order(split.source, generator, shuffle_buffer)
    indices = order[: len(split) // batch_size * batch_size].split(batch_size)
    for _ in indices[:start]:
        augmentation.draw(batch_size, generator)
    for images, labels in split.batches([index[rows] for index in indices[start:]]):
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        yield augmentation.apply(images, augmentation.draw(batch_size, generator), rows), labels
