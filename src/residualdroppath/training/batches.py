"""The batches of an epoch: a pure function of its seed, from any of them on, whole or the rows of one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.augment import draw_mirrored, draw_shifts, mirror, shift
from ..data.augmented import Augmented
from ..data.images import Split
from ..data.order import draw_order
from .runtime import derived_seed


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


class Places(NamedTuple):
    """Which images a batch holds: their numbers, and of repeated ones which copy each is; int64[rows]."""

    numbers: Tensor
    copies: Tensor

    def seeds(self, seed: int, purpose: str) -> list[int]:
        """One for each image, the same wherever and whenever it is computed."""
        pairs = zip(self.numbers.tolist(), self.copies.tolist(), strict=True)
        return [derived_seed(seed, f"{purpose} {number} {copy}") for number, copy in pairs]


class Batch(NamedTuple):
    """uint8[rows, channels, size, size] and int64[rows] on a device, and which images these are."""

    images: Tensor
    labels: Tensor
    places: Places


def rows_of(batch_size: int, process: int, processes: int) -> slice:
    """The rows of a batch that one of several processes computes; together all of them, in order."""
    return slice(batch_size * process // processes, batch_size * (process + 1) // processes)


def places_of_epoch(order: Tensor, batch_size: int, repeats: int = 1) -> list[Places]:
    """Whole batches of an order of images, each image in `repeats` copies: as many as without repeats.

    Copies follow each other at a distance, so that neighbours are different images.
    """
    distinct = -(-batch_size // repeats)
    count = len(order) // batch_size
    copies = torch.arange(batch_size) // distinct
    chunks = order[: count * distinct].split(distinct) if count else ()
    return [Places(chunk.repeat(repeats)[:batch_size], copies) for chunk in chunks]


def batches_of_epoch(
    split: Split,
    seed: int,
    batch_size: int,
    augmentation: Augmentation,
    device: torch.device,
    *,
    start: int = 0,
    rows: slice = slice(None),
    repeats: int = 1,
    augmented: Augmented | None = None,
    workers: int | None = None,
    shuffle_buffer: int | None = None,
) -> Iterator[Batch]:
    """Batches from number `start` on, no incomplete one; images are those of `augmented`, if it is given.

    Draws of batches before are repeated, their images neither read nor decoded. Draws are those of whole batches, so
    that an image is augmented alike in however many processes.
    """
    generator = torch.Generator().manual_seed(seed)
    order = draw_order(split.source, generator, shuffle_buffer)
    places = places_of_epoch(order, batch_size, repeats)
    for _ in places[:start]:
        augmentation.draw(batch_size, generator)
    ours = [Places(place.numbers[rows], place.copies[rows]) for place in places[start:]]
    if augmented is None:
        found = split.batches([place.numbers for place in ours])
    else:
        found = _augmented_one_by_one(split, augmented, ours, seed, workers, device)
    for (images, labels), place in zip(found, ours, strict=True):
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        yield Batch(augmentation.apply(images, augmentation.draw(batch_size, generator), rows), labels, place)


def _augmented_one_by_one(
    split: Split, augmented: Augmented, places: Sequence[Places], seed: int, workers: int | None, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    keys = (list(zip(place.numbers.tolist(), place.seeds(seed, "image"), strict=True)) for place in places)
    found = augmented.batches(keys, workers, pinned=device.type == "cuda")
    for images, place in zip(found, places, strict=True):
        yield images, split.labels[place.numbers.to(split.labels.device)]
