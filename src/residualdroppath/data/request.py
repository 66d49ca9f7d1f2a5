"""What is asked for of images: the name of a set or its folder, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..records.paths import expanded

NAMED_SETS = ("digits", "mnist", "fashion_mnist", "cifar10")
# As timm has them: Hugging Face datasets, TensorFlow datasets, and WebDataset shards, each with a name or folder.
READERS = ("hfds", "tfds", "wds")


def reader_of(data: str) -> tuple[str, str]:
    """The reader that `data` begins with, empty if none, and the rest. `./hfds` is a folder of that name."""
    reader, slash, rest = data.partition("/")
    return (reader.lower(), rest) if slash and reader.lower() in READERS else ("", data)


def located(data: str) -> str:
    """`data` with its folder or file named from the root, if it is one."""
    reader, rest = reader_of(data)
    path = expanded(rest)
    if data in NAMED_SETS or not path.exists():
        return data
    return f"{reader}/{path.absolute()}" if reader else str(path.absolute())


@dataclass(frozen=True)
class Request:
    """The set's name or folder, where to look, and how to read it."""

    data: str
    data_dir: Path
    download: bool = False
    image_size: int | None = None
    label_column: str = "label"
    image_column: str | None = None
