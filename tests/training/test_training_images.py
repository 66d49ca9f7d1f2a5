"""Training images by recipe: seeds of each image, repeats, and the same in any number of processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from residualdroppath.data.images import ImageData
from residualdroppath.errors import UserError
from residualdroppath.training.batches import Places, places_of_epoch
from residualdroppath.training.processes import Processes
from residualdroppath.training.run import load_config_data
from residualdroppath.training.training_images import TrainingImages

from .tiny_runs import tiny

STATISTICS = [78.0], [96.0]  # of digits, about
EVERYTHING: dict[str, Any] = {
    "crop_scale": (0.3, 1), "auto_augment": "rand-m9-mstd0.5-inc1", "erase": 0.5, "erase_mode": "pixel", "repeats": 3,
    "mixup": 0.8, "cutmix": 1.0, "mirror": True, "workers": 0,
}  # fmt: skip


class OneOf(Processes):
    """A process among others, which are not there."""

    def __init__(self, rank: int, count: int):
        super().__init__("cpu")
        self.rank, self.count = rank, count


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_config_data(tiny())


def batches(data: ImageData, *, rank: int = 0, count: int = 1, start: int = 0, epoch: int = 1, **options: Any) -> Any:
    images = TrainingImages(tiny(**options), data, OneOf(rank, count), STATISTICS)
    return list(images.batches(epoch, lambda batch: batch.double(), start))


def equal(ours: list[tuple[Tensor, Tensor]], theirs: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_any_processes_workers_and_place_to_start_from(data: ImageData, mode: str) -> None:
    options = {**EVERYTHING, "mix_mode": mode}
    whole = batches(data, **options)
    assert whole[0][0].shape == (32, 1, 8, 8) and whole[0][1].shape == (32, 10)
    assert equal(batches(data, start=2, **options), whole[2:])
    assert equal(batches(data, **{**options, "workers": 2}), whole)
    of_each = [batches(data, rank=rank, count=4, **options) for rank in range(4)]
    joined = [tuple(torch.cat(each) for each in zip(*parts, strict=True)) for parts in zip(*of_each, strict=True)]
    assert equal(joined, whole)  # pyright: ignore[reportArgumentType]
    assert not torch.equal(batches(data, epoch=2, **options)[0][0], whole[0][0])


def test_image_is_augmented_alike_wherever_it_comes_in_the_order(data: ImageData) -> None:
    """By its number and the epoch, not by its place in a batch."""
    options = {**EVERYTHING, "mixup": 0, "cutmix": 0, "mirror": False, "repeats": 1}
    small, large = (torch.cat([batch[0] for batch in batches(data, batch_size=size, **options)]) for size in (16, 48))
    assert torch.equal(small, large)


def test_default_recipe_does_none_of_it(data: ImageData) -> None:
    images = TrainingImages(tiny(), data, OneOf(0, 1), STATISTICS)
    assert images.augmented is None and images.augmentation.crop_padding == 1
    assert TrainingImages(tiny(crop_scale=(0.5, 1)), data, OneOf(0, 1), STATISTICS).augmentation.crop_padding == 0


def test_mixing_ends_after_an_epoch(data: ImageData) -> None:
    found = [batches(data, epoch=epoch, mixup=0.5, mix_until=2)[0][1] for epoch in (2, 3)]
    assert found[0].dtype == torch.float64 and found[1].dtype == torch.int64


def test_pairs_must_lie_in_one_process(data: ImageData) -> None:
    with pytest.raises(UserError, match="`batch_size` must be a multiple of 8 with `mixup`.*got 36"):
        TrainingImages(tiny(mixup=0.5, batch_size=36), data, OneOf(0, 4), STATISTICS)
    with pytest.raises(ValueError, match="`batch_size` must be even with `mixup`"):
        tiny(mixup=0.5, batch_size=33)


@pytest.mark.parametrize("repeats", [1, 2, 3, 12, 20])
def test_copies_of_an_image(repeats: int) -> None:
    """Each batch holds each of its images in that many copies, but for the last of them; an epoch is not longer."""
    places = places_of_epoch(torch.arange(50), 12, repeats)
    assert len(places) == 4
    for place in places:
        pairs = set(zip(place.numbers.tolist(), place.copies.tolist(), strict=True))
        assert len(pairs) == 12 and place.copies.max() <= repeats - 1
        assert len(place.numbers.unique()) == -(-12 // repeats)
    assert len(torch.cat([place.numbers for place in places]).unique()) == 4 * -(-12 // repeats)


def test_neighbours_are_different_images() -> None:
    pairs = places_of_epoch(torch.arange(60), 12, 3)[0].numbers.view(-1, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()


def test_seeds_differ_by_image_copy_and_purpose() -> None:
    places = Places(torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1]))
    seeds = [*places.seeds(1, "image"), *places.seeds(1, "erase"), *places.seeds(2, "image")]
    assert len(set(seeds)) == 9
