"""The embedded set, and how a validation part is cut from training images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from residualdroppath.data.image_sources import InMemory
from residualdroppath.data.images import ImageData
from residualdroppath.data.load import load_data
from residualdroppath.errors import UserError
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import load_config_data

from .files import request, write_image_folder


def images(data: ImageData, part: str) -> torch.Tensor:
    source = getattr(data, part).decoded().source
    assert isinstance(source, InMemory)
    return source.images


def digits(**options: float) -> ImageData:
    return load_data(request("digits"), **options)  # pyright: ignore[reportArgumentType]


def test_digits_are_scikit_learns_in_whole_steps_of_255() -> None:
    data = digits()
    assert (data.num_classes, data.channels, data.image_size, data.mirrored) == (10, 1, 8, False)
    parts = [images(data, part) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == 1797 and len(parts[2]) == 360
    every = torch.cat(parts).view(1797, 64)
    assert every.dtype == torch.uint8
    expected = torch.from_numpy(load_digits(return_X_y=True)[0])
    back = every.double() * 16 / 255
    assert (back - back.round()).abs().max() < 0.04
    assert sorted(map(tuple, back.round().int().tolist())) == sorted(map(tuple, expected.int().tolist()))


def test_parts_are_disjoint_and_stratified() -> None:
    data = digits(validation_fraction=0.2)
    whole = torch.bincount(torch.cat([data.train.labels, data.validation.labels]), minlength=10)
    share = torch.bincount(data.validation.labels, minlength=10) / whole
    assert (share - 0.2).abs().max() < 0.01
    rows = [set(map(tuple, images(data, part).view(-1, 64).tolist())) for part in ("train", "validation", "test")]
    assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]


def test_cut_depends_on_its_own_seed_alone() -> None:
    config = TrainConfig(seed=0)
    first, other_training = load_config_data(config), load_config_data(config.model_copy(update={"seed": 5}))
    other_cut = load_config_data(config.model_copy(update={"split_seed": 1}))
    for part in ("train", "validation", "test"):
        assert torch.equal(images(first, part), images(other_training, part))
    assert not torch.equal(images(first, "validation"), images(other_cut, "validation"))
    assert torch.equal(images(first, "test"), images(other_cut, "test"))


def test_train_size_keeps_that_many_in_proportion_and_leaves_the_rest_alone() -> None:
    whole, some = digits(), digits(train_size=100)
    assert len(some.train) == 100
    assert torch.bincount(some.train.labels, minlength=10).tolist() == [10] * 10
    assert torch.equal(images(whole, "validation"), images(some, "validation"))
    kept = set(map(tuple, images(some, "train").view(-1, 64).tolist()))
    assert kept <= set(map(tuple, images(whole, "train").view(-1, 64).tolist()))


def test_train_size_of_all_keeps_all() -> None:
    whole = digits()
    assert torch.equal(images(digits(train_size=len(whole.train)), "train"), images(whole, "train"))


@pytest.mark.parametrize("size", [9, 1294, 10**9])
def test_train_size_out_of_bounds(size: int) -> None:
    with pytest.raises(UserError, match=rf"`train_size` must be in \[10, 1293\], got {size}"):
        digits(train_size=size)


def test_validation_fraction_that_leaves_a_class_out() -> None:
    with pytest.raises(UserError, match="`validation_fraction`=0.001 cannot cut 1437 training images") as error:
        digits(validation_fraction=0.001)
    assert "\n" not in str(error.value)


def test_each_class_needs_two_images(tmp_path: Path) -> None:
    write_image_folder(tmp_path, classes=("a", "b", "c"))
    for number in range(1, 6):
        (tmp_path / "train" / "b" / f"{number}.png").unlink()
    with pytest.raises(UserError, match="at least 2 training images of each class, class 1 .b. has 1"):
        load_data(request(str(tmp_path)))


def test_image_size_resizes_all_parts() -> None:
    data = load_data(request("digits", image_size=5))
    assert data.image_size == 5
    for part in ("train", "validation", "test"):
        assert images(data, part).shape[1:] == (1, 5, 5) and images(data, part).dtype == torch.uint8


def test_unknown_data_names_the_known() -> None:
    with pytest.raises(UserError, match="digits, mnist, fashion_mnist, cifar10, a folder .* got 'digit'"):
        load_data(request("digit"))
