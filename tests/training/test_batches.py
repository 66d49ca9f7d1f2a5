"""Batches of an epoch from any of them on, and the rows of each process, are those of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from residualdroppath.data.augment import draw_mirrored, draw_shifts, mirror, shift
from residualdroppath.data.image_sources import InMemory
from residualdroppath.data.images import Split
from residualdroppath.training.batches import Augmentation, batches_of_epoch, rows_of

CPU = torch.device("cpu")
SPLIT = Split(InMemory(torch.arange(50 * 2 * 16).remainder(251).to(torch.uint8).view(50, 2, 4, 4)), torch.arange(50))
AUGMENTATIONS = [Augmentation(1, True), Augmentation(0, True), Augmentation(2, False), Augmentation(0, False)]


def batches(augmentation: Augmentation, **part: object) -> list[tuple[Tensor, Tensor]]:
    found = batches_of_epoch(SPLIT, 5, 12, augmentation, CPU, **part)  # pyright: ignore[reportArgumentType]
    return [(batch.images, batch.labels) for batch in found]


def equal(ours: list[tuple[Tensor, Tensor]], theirs: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def test_order_and_draws_come_from_one_generator() -> None:
    """What recipes have always been: results that are kept go by it."""
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(50, generator=generator)
    expected = []
    for start in range(0, 48, 12):
        index = order[start : start + 12]
        images = shift(SPLIT.source.images[index], 1, draw_shifts(12, 1, generator))  # pyright: ignore
        expected.append((mirror(images, draw_mirrored(12, generator)), index))
    assert equal(batches(AUGMENTATIONS[0]), expected)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_from_any_batch_on(augmentation: Augmentation, start: int) -> None:
    assert equal(batches(augmentation, start=start), batches(augmentation)[start:])


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("processes", [1, 2, 5])
def test_rows_of_processes_make_up_the_batch(augmentation: Augmentation, processes: int) -> None:
    of_each = [batches(augmentation, rows=rows_of(12, process, processes)) for process in range(processes)]
    joined = [tuple(torch.cat(each) for each in zip(*parts, strict=True)) for parts in zip(*of_each, strict=True)]
    assert equal(joined, batches(augmentation))  # pyright: ignore[reportArgumentType]


def test_skipped_images_are_not_decoded() -> None:
    seen: list[int] = []

    class Noting(InMemory):
        def batches(self, indices):  # pyright: ignore
            seen.extend(int(place) for index in indices for place in index)
            return super().batches(indices)

    split = Split(Noting(SPLIT.source.images), SPLIT.labels)  # pyright: ignore
    list(batches_of_epoch(split, 5, 12, AUGMENTATIONS[0], CPU, start=3))
    assert len(seen) == 12
