"""Some classes, and a number of images of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath.data.images import ImageData
from residualdroppath.data.load import load_data
from residualdroppath.data.sources import Request
from residualdroppath.errors import UserError

DIGITS = Request(data="digits", data_dir=Path("data"))


def pixels(data: ImageData, part: str = "train") -> torch.Tensor:
    split = getattr(data, part)
    return next(iter(split.batches([torch.arange(len(split))])))[0].flatten(1)


def cut(**cuts: Any) -> ImageData:
    return load_data(DIGITS, **cuts)


@pytest.mark.parametrize("seed", [None, 3])
def test_some_classes_numbered_anew(seed: int | None) -> None:
    whole, some = cut(), cut(num_classes=4, class_seed=seed)
    assert some.num_classes == 4
    # Which class of the whole set an image is of, by its pixels.
    test = [tuple(image) for image in pixels(whole, "test").tolist()]
    old = [int(whole.test.labels[test.index(tuple(image))]) for image in pixels(some, "test").tolist()]
    new_of_old = dict(zip(old, some.test.labels.tolist(), strict=True))
    kept = sorted(new_of_old)
    assert [new_of_old[label] for label in kept] == [0, 1, 2, 3]
    assert (kept == [0, 1, 2, 3]) == (seed is None)
    assert len(some.test) == int(torch.isin(whole.test.labels, torch.tensor(kept)).sum())
    for split in (some.train, some.validation):
        assert set(split.labels.tolist()) == {0, 1, 2, 3}


def test_choice_of_classes_is_by_seed() -> None:
    sizes = {seed: pixels(cut(num_classes=3, class_seed=seed), "test").sum() for seed in (0, 0, 1, 2)}
    assert len(set(map(int, sizes.values()))) > 1
    assert int(pixels(cut(num_classes=3, class_seed=1), "test").sum()) == int(sizes[1])


def test_images_per_class_are_exact_and_nested() -> None:
    few, more = cut(images_per_class=5), cut(images_per_class=9)
    assert torch.bincount(few.train.labels).tolist() == [5] * 10
    assert torch.bincount(more.train.labels).tolist() == [9] * 10
    assert {tuple(image) for image in pixels(few).tolist()} <= {tuple(image) for image in pixels(more).tolist()}
    assert len(few.validation) == len(more.validation) == len(cut().validation)
    assert not torch.equal(pixels(few), pixels(cut(images_per_class=5, split_seed=1)))


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ({"num_classes": 11}, "`num_classes` must be at most the set's 10 classes, got 11"),
        ({"images_per_class": 1000}, "`images_per_class` must be at most the"),
    ],
)
def test_too_many(cuts: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cut(**cuts)
