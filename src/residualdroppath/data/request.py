"""What is asked for of images: the name of a set or its folder, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NAMED_SETS = ("digits", "mnist", "fashion_mnist", "cifar10")


@dataclass(frozen=True)
class Request:
    """The set's name or folder, where to look, and how to read it."""

    data: str
    data_dir: Path
    download: bool = False
    image_size: int | None = None
    label_column: str = "label"
    image_column: str | None = None
