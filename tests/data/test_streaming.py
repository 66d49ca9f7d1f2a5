"""Sets too large for memory are decoded batch by batch, and give the very same batches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from residualdroppath.data import image_sources
from residualdroppath.data.augment import IMAGENET_MEAN, channel_statistics
from residualdroppath.data.image_sources import Encoded, InMemory
from residualdroppath.data.images import ImageData
from residualdroppath.data.load import load_data
from residualdroppath.errors import UserError

from .files import encoded, pixels, request, write_image_folder

# Workers fork; newer Pythons warn of it in any process that has threads, as PyTorch's has.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def load(folder: Path) -> ImageData:
    return load_data(request(str(folder)), validation_fraction=0.25, train_size=12)


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[ImageData, ImageData]:
    """One folder: held in memory, and streamed."""
    write_image_folder(tmp_path, per_class=10)
    held = load(tmp_path)
    monkeypatch.setattr(image_sources, "MEMORY_LIMIT", 5 * 3 * 10 * 10 - 1)
    return held, load(tmp_path)


def test_only_parts_that_fit_are_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_image_folder(tmp_path, per_class=10)
    monkeypatch.setattr(image_sources, "MEMORY_LIMIT", 12 * 3 * 10 * 10)
    data = load(tmp_path)
    assert isinstance(data.train.source, InMemory) and isinstance(data.validation.source, InMemory)
    assert isinstance(data.test.source, Encoded)
    monkeypatch.setattr(image_sources, "MEMORY_LIMIT", 12 * 3 * 10 * 10 - 1)
    data = load(tmp_path)
    assert isinstance(data.train.source, Encoded) and isinstance(data.validation.source, InMemory)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_same_batches(streamed: tuple[ImageData, ImageData], part: str) -> None:
    held, stream = (getattr(data, part) for data in streamed)
    assert len(held) == len(stream) == len(held.source) == len(stream.source)
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(3))
    for ours, theirs in zip(held.batches(order.split(3)), stream.batches(order.split(3)), strict=True):
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_statistics_of_what_is_not_in_memory_are_imagenets(streamed: tuple[ImageData, ImageData]) -> None:
    mean, _ = channel_statistics(streamed[1].train.source)
    assert mean == [255 * value for value in IMAGENET_MEAN]


def test_broken_image_in_a_worker_is_told_in_one_line(streamed: tuple[ImageData, ImageData], tmp_path: Path) -> None:
    path = tmp_path / "test" / "dog" / "3.png"
    path.write_bytes(encoded(pixels(0, 10, 10, 3))[:60])
    with pytest.raises(UserError) as error:
        list(streamed[1].test.batches([torch.arange(20)]))
    assert str(error.value).startswith(f"{path} cannot be decoded as an image") and "\n" not in str(error.value)


def test_file_that_vanishes_is_told_in_one_line(streamed: tuple[ImageData, ImageData], tmp_path: Path) -> None:
    path = tmp_path / "test" / "cat" / "0.png"
    os.remove(path)
    with pytest.raises(UserError, match="cannot be decoded as an image .*No such file") as error:
        list(streamed[1].test.batches([torch.arange(20)]))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
