"""MNIST's files in torchvision's layout, whole and damaged."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from residualdroppath.data.image_sources import InMemory
from residualdroppath.data.sources import Source, read_source
from residualdroppath.errors import UserError

from .files import idx, pixels, request, write_mnist

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def read(folder: Path, **options: Any) -> Source:
    return read_source(request("mnist", data_dir=folder, **options))


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        read(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("data", "name", "mirrored"), [("mnist", "MNIST", False), ("fashion_mnist", "FashionMNIST", True)]
)
def test_pixels_and_labels_come_back(tmp_path: Path, compress: bool, data: str, name: str, mirrored: bool) -> None:
    arrays = write_mnist(tmp_path, compress=compress, folder_name=name)
    source = read_source(request(data, data_dir=tmp_path))
    assert (source.num_classes, source.channels, source.image_size, source.mirrored) == (10, 1, 6, mirrored)
    for split, part in ((source.train, "train"), (source.test, "t10k")):
        assert isinstance(split.source, InMemory)
        assert np.array_equal(split.source.images[:, 0].numpy(), arrays[f"{part}-images-idx3-ubyte"])
        assert split.labels.dtype == torch.int64
        assert split.labels.tolist() == arrays[f"{part}-labels-idx1-ubyte"].tolist()


def test_resized(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=True)
    source = read(tmp_path, image_size=12)
    assert source.image_size == 12
    assert next(iter(source.test.batches([torch.arange(3)])))[0].shape == (3, 1, 12, 12)


def test_missing_folder_names_option_and_download(tmp_path: Path) -> None:
    message = refused(tmp_path)
    assert "train-images-idx3-ubyte.gz is missing" in message and "`data_dir`" in message and "`download`" in message


@pytest.mark.parametrize("name", [IMAGES, LABELS, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_one_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_mnist(tmp_path, compress=True)
    (tmp_path / "MNIST" / "raw" / f"{name}.gz").unlink()
    assert f"{name}.gz is missing" in refused(tmp_path)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=False)
    path = tmp_path / "MNIST" / "raw" / IMAGES
    whole = path.read_bytes()
    for length in (0, 1, 3, 4, 15, 16, 17, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert f"{IMAGES} is truncated or damaged" in refused(tmp_path)
    path.write_bytes(whole + b"x")
    assert f"{IMAGES} is truncated or damaged" in refused(tmp_path)


def test_every_truncation_of_a_compressed_file_is_found(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=True)
    path = tmp_path / "MNIST" / "raw" / f"{IMAGES}.gz"
    whole = path.read_bytes()
    for length in (0, 1, 5, 12, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert f"{IMAGES}.gz is truncated or damaged" in refused(tmp_path)


def test_a_flipped_bit_of_a_compressed_file_is_found(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=True)
    path = tmp_path / "MNIST" / "raw" / f"{IMAGES}.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "is truncated or damaged" in refused(tmp_path)


def test_a_page_of_text_is_no_idx_file(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=False)
    (tmp_path / "MNIST" / "raw" / IMAGES).write_text("<html>not found</html>")
    assert "is truncated or damaged" in refused(tmp_path)


@pytest.mark.parametrize("magic", [0x0801, 0x0D03, 0x0804])
def test_wrong_magic(tmp_path: Path, magic: int) -> None:
    write_mnist(tmp_path, compress=False)
    path = tmp_path / "MNIST" / "raw" / IMAGES
    path.write_bytes(magic.to_bytes(4, "big") + path.read_bytes()[4:])
    assert "is truncated or damaged" in refused(tmp_path)


def test_as_many_labels_as_images(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=False)
    (tmp_path / "MNIST" / "raw" / LABELS).write_bytes(idx(np.zeros(39)))
    assert "40 train images but 39 labels" in refused(tmp_path)


def test_labels_of_ten_classes(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=False)
    (tmp_path / "MNIST" / "raw" / LABELS).write_bytes(idx(np.arange(40) % 11))
    assert "labels 0 to 9" in refused(tmp_path)


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_no_images_at_all(tmp_path: Path, part: str) -> None:
    write_mnist(tmp_path, compress=True)
    raw = tmp_path / "MNIST" / "raw"
    (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels(0, 0, 6, 6))))
    (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(pixels(0, 0))))
    assert f"must hold {part} images" in refused(tmp_path)


def test_cifar10_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cifar-10-batches-py is missing. Point `data_dir`"):
        read_source(request("cifar10", data_dir=tmp_path))


def test_cifar10_with_files_that_are_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"x")
    with pytest.raises(UserError, match="cifar10 could not be read or fetched under") as error:
        read_source(request("cifar10", data_dir=tmp_path))
    assert "\n" not in str(error.value)
