"""Where images come from: scikit-learn's digits, torchvision's sets, image folders, Parquet files."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, first_line
from .images import ImageSource, InMemory, Split, load_images, resize

T = TypeVar("T")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


@dataclass(frozen=True)
class Request:
    """What was asked for: the set's name or folder, where to look, and how to read it."""

    data: str
    data_dir: Path
    download: bool = False
    image_size: int | None = None
    label_column: str = "label"
    image_column: str | None = None


@dataclass(frozen=True)
class Source:
    """All training and test images of a set."""

    train: Split
    test: Split
    num_classes: int
    channels: int
    image_size: int
    mirrored: bool


def read_source(request: Request) -> Source:
    """Read the set that `request.data` names. Raises `UserError` for what is missing, unknown or broken."""
    if request.data in NAMED:
        return NAMED[request.data](request)
    folder = Path(request.data)
    if not folder.is_dir():
        raise UserError(
            f"`data` must be one of {', '.join(NAMED)}, or a folder with train/CLASS/*.jpg or train.parquet, "
            f"got {request.data!r}, which is not a folder here."
        )
    if any(folder.glob("*.parquet")):
        return _parquet(folder, request)
    return _image_folder(folder, request)


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
    return _source(both.subset(torch.from_numpy(train)), both.subset(torch.from_numpy(test)), 10, mirrored=False)


def _mnist_like(folder: str, mirrored: bool) -> Callable[[Request], Source]:
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
        return _source(parts[0], parts[1], 10, mirrored=mirrored)

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

    return _download(lambda: _source(read(True), read(False), 10, mirrored=True), request)


def _image_folder(folder: Path, request: Request) -> Source:
    test_name = next((name for name in ("test", "val", "validation") if (folder / name).is_dir()), None)
    if not (folder / "train").is_dir() or test_name is None:
        raise UserError(f"{folder} must hold train/CLASS/*.jpg and test/CLASS/*.jpg (or val/); it does not.")
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    if len(classes) < 2:
        raise UserError(f"{folder / 'train'} must hold a folder for each of at least 2 classes, got {len(classes)}.")
    size = request.image_size
    splits = []
    for part in ("train", test_name):
        unknown = {path.name for path in (folder / part).iterdir() if path.is_dir()} - set(classes)
        if unknown:
            raise UserError(f"{folder / part} holds classes that train/ lacks: {', '.join(sorted(unknown)[:5])}.")
        files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((folder / part / name).rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES
        ]
        paths = [path for path, _ in files]
        source = load_images(paths, [str(path) for path in paths], str(folder / part), size)
        size = _size(source)
        splits.append(Split(source, torch.tensor([label for _, label in files])))
    return _source(splits[0], splits[1], len(classes), mirrored=True)


def _parquet(folder: Path, request: Request) -> Source:
    size = request.image_size
    splits, values = [], []
    for names in (("train",), ("test", "val", "validation")):
        files = next((found for name in names if (found := sorted(folder.glob(f"{name}*.parquet")))), None)
        if not files:
            raise UserError(f"{folder} must hold train*.parquet and test*.parquet (or val*); {names[0]}* is missing.")
        encoded, labels = _read_parquet(files, request)
        source = load_images(
            encoded, [f"{files[0].parent}/{names[0]} row {i}" for i in range(len(encoded))], str(files[0]), size
        )
        size = _size(source)
        splits.append(source)
        values.append(labels)
    classes = {value: index for index, value in enumerate(sorted(set(values[0])))}
    if unknown := set(values[1]) - set(classes):
        raise UserError(f"The test part of {folder} holds labels that train lacks: {sorted(unknown)[:5]}.")
    train, test = (
        Split(source, torch.tensor([classes[value] for value in labels]))
        for source, labels in zip(splits, values, strict=True)
    )
    return _source(train, test, len(classes), mirrored=True)


def _read_parquet(files: list[Path], request: Request) -> tuple[list[bytes], list]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pa.concat_tables([pq.read_table(path) for path in files])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{files[0]} cannot be read as Parquet ({first_line(error)}); fetch it again.") from error
    names = table.column_names
    if request.label_column not in names:
        raise UserError(
            f"`label_column` {request.label_column!r} is not in {files[0]}; its columns are {', '.join(names)}."
        )
    image_column = request.image_column or next(
        (name for name in names if _holds_bytes(table.schema.field(name).type)), None
    )
    if image_column not in names:
        raise UserError(
            f"`image_column` must name a column of encoded images in {files[0]}, got {image_column!r}; "
            f"its columns are {', '.join(names)}."
        )
    images = table[image_column].to_pylist()
    encoded: list[Any] = [image.get("bytes") if isinstance(image, dict) else image for image in images]
    if not all(isinstance(image, bytes) for image in encoded):
        raise UserError(f"`image_column` {image_column!r} of {files[0]} holds rows that are not encoded images.")
    labels = table[request.label_column].to_pylist()
    if any(label is None for label in labels):
        raise UserError(f"`label_column` {request.label_column!r} of {files[0]} has rows without a label; remove them.")
    if not all(isinstance(label, (int, str)) for label in labels):
        raise UserError(f"`label_column` {request.label_column!r} of {files[0]} must hold whole numbers or texts.")
    return encoded, labels


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if isinstance(kind, pa.StructType):  # how Hugging Face datasets store images
        return any(field.name == "bytes" for field in kind)
    return kind in (pa.binary(), pa.large_binary())


def _source(train: Split, test: Split, num_classes: int, *, mirrored: bool) -> Source:
    first = next(iter(train.batches([torch.tensor([0])])))[0]
    return Source(train, test, num_classes, first.shape[1], first.shape[-1], mirrored)


def _size(source: ImageSource) -> int:
    return next(iter(source.batches([torch.tensor([0])]))).shape[-1]


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


NAMED: dict[str, Callable[[Request], Source]] = {
    "digits": _digits,
    "mnist": _mnist_like("MNIST", mirrored=False),
    "fashion_mnist": _mnist_like("FashionMNIST", mirrored=True),
    "cifar10": _cifar10,
}
