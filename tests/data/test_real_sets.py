"""The real MNIST files, where they are: under `RDP_DATA_DIR`, `data/`, or `shared/data` beside the checkout."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

from residualdroppath.data.image_sources import Encoded, InMemory
from residualdroppath.data.sources import read_source
from residualdroppath.data.stored import Piece

from .files import request

CHECKOUT = Path(__file__).parents[2]
FOLDERS = [Path(os.environ.get("RDP_DATA_DIR", "data")), CHECKOUT / "data", CHECKOUT.parent / "shared" / "data"]
MD5 = {  # as torchvision lists them
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


@pytest.fixture(scope="module")
def folder() -> Path:
    found = next((f for f in FOLDERS if all((f / "MNIST" / "raw" / name).is_file() for name in MD5)), None)
    if found is None:
        pytest.skip("MNIST is in none of RDP_DATA_DIR, data/ and ../shared/data")
    return found


def test_files_are_the_published_ones(folder: Path) -> None:
    for name, expected in MD5.items():
        assert hashlib.md5((folder / "MNIST" / "raw" / name).read_bytes()).hexdigest() == expected


def test_mnist_is_read_whole(folder: Path) -> None:
    source = read_source(request("mnist", data_dir=folder))
    assert isinstance(source.train.source, InMemory) and isinstance(source.test.source, InMemory)
    assert source.train.source.images.shape == (60000, 1, 28, 28)
    assert source.test.source.images.shape == (10000, 1, 28, 28)
    assert source.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert torch.bincount(source.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert source.train.source.images.double().mean().item() / 255 == pytest.approx(0.1307, abs=5e-5)


def test_shards_of_tiny_imagenet() -> None:
    folder = next((f / "tiny-imagenet-40" for f in FOLDERS if (f / "tiny-imagenet-40").is_dir()), None)
    if folder is None:
        pytest.skip("tiny-imagenet-40 is in none of RDP_DATA_DIR, data/ and ../shared/data")
    source = read_source(request(f"wds/{folder}"))
    assert len(source.train) == 20_000 and source.validation is not None and len(source.validation) == 2_000
    assert torch.bincount(source.train.labels).tolist() == [500] * 40 and source.image_size == 64
    assert isinstance(source.train.source, Encoded) and source.train.source.by_shard is not None
    first = source.train.source.items[0]
    assert isinstance(first, Piece) and first.name == "n04487081_289.jpeg"
    assert source.classes[int(source.train.labels[0])].startswith("trolleybus")
    assert [len(places) for places in source.train.source.by_shard] == [4128, 4131, 4151, 4124, 3466]
