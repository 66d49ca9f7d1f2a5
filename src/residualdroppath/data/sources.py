"""Where images come from: scikit-learn's digits and torchvision's sets by name, else a folder of files."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, first_line
from ..records.paths import expanded
from .folders import read_image_folder
from .image_sources import InMemory
from .images import Split, resize
from .parquet import parquet_folder, read_parquet
from .parts import Source, shown
from .request import NAMED_SETS, READERS, Request, reader_of
from .tars import holds_tars, read_tar_file, read_tar_folder

T = TypeVar("T")
DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Readers of tables, each in need of a library of its own.
ROWS = {"hfds": ".hugging_face", "tfds": ".tensorflow"}
__all__ = ["NAMED", "Request", "Source", "read_source"]


def read_source(request: Request) -> Source:
    """Read the set that `request.data` names. Raises `UserError` for what is missing, unknown or broken."""
    if request.data in NAMED:
        return NAMED[request.data](request)
    reader, name = reader_of(request.data)
    folder = expanded(name)
    if reader in ROWS:
        return import_module(ROWS[reader], __package__).read_rows(name, request)
    if folder.is_file() and folder.suffix == ".tar":
        return read_tar_file(folder, request)
    if not folder.is_dir():
        raise UserError(
            f"`data` must be one of {', '.join(NAMED_SETS)}, a folder with train/CLASS/*.jpg, train.parquet or "
            f"train*.tar, a tar file, or one of these after {', '.join(READERS)} and a slash, got {request.data!r}, "
            "which is not a folder here."
        )
    if reader == "wds":
        return read_tar_folder(folder, request, samples=True)
    files = parquet_folder(folder)
    if files is None and (nested := sorted({str(path.parent) for path in shown(folder, "*/*.parquet")})):
        raise UserError(f"{folder} holds Parquet files in {', '.join(nested)}; name one of these folders as `data`.")
    if files is None and holds_tars(folder):
        return read_tar_folder(folder, request)
    if files is None:
        return read_image_folder(folder, request)
    if (folder / "train").is_dir():
        raise UserError(f"{folder} holds both a folder train/ and Parquet files; move one of them elsewhere.")
    return read_parquet(files, request)


def _digits(request: Request) -> Source:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, targets = load_digits(return_X_y=True)  # 8x8 pixels of 0 to 16
    images = torch.from_numpy(np.round(np.asarray(pixels) * 255 / 16).astype(np.uint8)).view(-1, 1, 8, 8)
    images = resize(images, request.image_size)
    labels = torch.from_numpy(np.asarray(targets).astype(np.int64))
    # The set has no official test part: this cut is fixed.
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    both = Split(InMemory(images), labels)
    return _source(both.subset(torch.from_numpy(train)), both.subset(torch.from_numpy(test)), DIGITS, mirrored=False)


def _mnist_like(folder: str, classes: Sequence[str], *, mirrored: bool) -> Callable[[Request], Source]:
    def read(request: Request) -> Source:
        raw = request.data_dir / folder / "raw"
        if not raw.is_dir() and request.download:
            from ..models.torchvision_ops import ensure_torchvision_ops

            ensure_torchvision_ops()
            from torchvision import datasets

            _download(lambda: getattr(datasets, folder)(request.data_dir, download=True), request)
        parts = []
        for part in ("train", "t10k"):
            images = _read_idx(raw, f"{part}-images-idx3-ubyte", 3, request)
            labels = _read_idx(raw, f"{part}-labels-idx1-ubyte", 1, request)
            if len(images) != len(labels):
                raise UserError(f"{raw} holds {len(images)} {part} images but {len(labels)} labels; fetch it again.")
            if not len(images) or int(labels.max()) > 9:
                raise UserError(f"{raw} must hold {part} images with labels 0 to 9, it does not; fetch it again.")
            parts.append(Split(InMemory(resize(images[:, None], request.image_size)), labels.long()))
        return _source(parts[0], parts[1], classes, mirrored=mirrored)

    return read


def _read_idx(raw: Path, name: str, dimensions: int, request: Request) -> Tensor:
    """An IDX file (plain or .gz) of unsigned bytes, as torchvision lays it out."""
    path = next((path for path in (raw / name, raw / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise _missing(raw / f"{name}.gz", request)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        header = struct.unpack_from(f">{1 + dimensions}i", content)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is truncated or damaged ({error}); fetch it again.") from error
    magic, shape = header[0], header[1:]
    size = int(np.prod(shape))
    if magic != 0x0800 + dimensions or len(content) != 4 * (1 + dimensions) + size:
        raise UserError(f"{path} is truncated or damaged (its length and header disagree); fetch it again.")
    array = np.frombuffer(content, np.uint8, offset=4 * (1 + dimensions)).reshape(shape)
    return torch.from_numpy(array.copy())


def _cifar10(request: Request) -> Source:
    from ..models.torchvision_ops import ensure_torchvision_ops

    ensure_torchvision_ops()
    from torchvision.datasets import CIFAR10

    if not (request.data_dir / CIFAR10.base_folder).is_dir() and not request.download:
        raise _missing(request.data_dir / CIFAR10.base_folder, request)

    def read(train: bool) -> Split:
        data = CIFAR10(str(request.data_dir), train=train, download=request.download)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return Split(InMemory(resize(images, request.image_size)), torch.tensor(data.targets))

    return _download(lambda: _source(read(True), read(False), CIFAR10_CLASSES, mirrored=True), request)


def _source(train: Split, test: Split, classes: Sequence[str], *, mirrored: bool) -> Source:
    assert isinstance(train.source, InMemory)
    _, channels, _, size = train.source.images.shape
    return Source(train, test, len(classes), channels, size, mirrored, classes=tuple(classes))


def _missing(path: Path, request: Request) -> UserError:
    return UserError(f"{path} is missing. Point `data_dir` to where {request.data} lies, or allow `download`.")


def _download(read: Callable[[], T], request: Request) -> T:
    try:
        return read()
    except (RuntimeError, OSError, EOFError) as error:
        raise UserError(
            f"{request.data} could not be read or fetched under {request.data_dir} ({first_line(error)}); check the "
            "network, or remove what is there and fetch it again."
        ) from error


# As in `NAMED_SETS`.
NAMED: dict[str, Callable[[Request], Source]] = {
    "digits": _digits,
    "mnist": _mnist_like("MNIST", DIGITS, mirrored=False),
    "fashion_mnist": _mnist_like("FashionMNIST", CLOTHES, mirrored=True),
    "cifar10": _cifar10,
}
