"""Tiny data sets on disk, right and wrong ones."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from residualdroppath.data.sources import Request


def request(data: str, **options: Any) -> Request:
    return Request(**{"data": data, "data_dir": Path("nowhere"), **options})


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    """The IDX format, written from its description: magic, sizes, bytes."""
    return struct.pack(f">i{array.ndim}i", 0x0800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, compress: bool, folder_name: str = "MNIST") -> dict[str, np.ndarray]:
    """40 training and 20 test images of 6x6 pixels; returns what was written, by file."""
    raw = folder / folder_name / "raw"
    raw.mkdir(parents=True)
    arrays = {}
    for part, count, seed in (("train", 40, 1), ("t10k", 20, 2)):
        arrays[f"{part}-images-idx3-ubyte"] = pixels(seed, count, 6, 6)
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 10
    for name, array in arrays.items():
        content = idx(array)
        path = raw / (f"{name}.gz" if compress else name)
        path.write_bytes(gzip.compress(content) if compress else content)
    return arrays


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def write_image_folder(
    folder: Path, *, classes: Sequence[str] = ("cat", "dog"), per_class: int = 6, test: str = "test", size: int = 10
) -> dict[str, np.ndarray]:
    """PNG files, so that pixels come back exactly; returns them by path within the folder."""
    written = {}
    for seed, (part, name) in enumerate((part, name) for part in ("train", test) for name in classes):
        for number in range(per_class):
            array = pixels(100 * seed + number, size, size, 3)
            path = folder / part / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(array))
            written[path.relative_to(folder).as_posix()] = array
    return written


def write_parquet(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def parquet_columns(labels: Sequence[Any], *, seed: int = 0) -> dict[str, Any]:
    return {"image": [encoded(pixels(seed + i, 10, 10, 3)) for i in range(len(labels))], "label": list(labels)}


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """An uncompressed tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_shards(
    folder: Path, counts: Sequence[int] = (5, 3, 4), *, part: str = "train", classes: int = 2, size: int = 10
) -> list[np.ndarray]:
    """WebDataset shards of so many samples; returns their images, in order. Labels are numbers modulo `classes`."""
    images = [pixels(1000 * len(part) + number, size, size, 3) for number in range(sum(counts))]
    number = 0
    for shard, count in enumerate(counts):
        members = {}
        for _ in range(count):
            members[f"{part}/{number:04}.png"] = encoded(images[number])
            members[f"{part}/{number:04}.cls"] = str(number % classes).encode()
            number += 1
        write_tar(folder / f"{part}-{shard:03}.tar", members)
    return images
