"""What was found of a data set, in lines for a person, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .image_sources import Encoded
from .images import ImageData, Split

CLASSES_SHOWN = 12
DECODING = "EXIF orientation is followed, 16-bit greyscale scaled, transparent parts composed on white"


def describe(data: ImageData) -> list[str]:
    """Images per part, classes by name, the size in force, what decoding changed, and what was not read and why."""
    parts = {"training": data.train, "validation": data.validation, "test": data.test}
    counts = ", ".join(f"{len(split):,} {part}" for part, split in parts.items() if part != "test" or data.has_test)
    kind = f"{data.image_size}x{data.image_size} pixels, {'grey' if data.channels == 1 else 'colour'}"
    lines = [f"data: {data.name}", f"images: {counts}; {kind}", _classes(data)]
    if not data.has_test:
        lines.append("test: there is no test part, so accuracy is reported on validation images")
    for part, split in parts.items():
        lines += decoding_lines(part, split)
    return [*lines, *data.notes]


def decoding_lines(part: str, split: Split) -> list[str]:
    """What decoding changed in the images of a part, as far as they have been decoded."""
    lines = []
    if isinstance(split.source, Encoded):
        lines.append(f"{part} images do not fit into memory and are decoded batch by batch; {DECODING}")
    return [*lines, *remark_lines(f"{part} images", split.remarks())]


def remark_lines(what: str, remarks: Mapping[str, int]) -> list[str]:
    return [f"{count:,} {what}: {remark}" for remark, count in sorted(remarks.items())]


def _classes(data: ImageData) -> str:
    """Names with their numbers of training images; of many classes, some and the range."""
    counts = torch.bincount(data.train.labels.cpu(), minlength=data.num_classes).tolist()
    names = data.classes or [str(label) for label in range(data.num_classes)]
    shown = ", ".join(f"{name}: {count:,}" for name, count in list(zip(names, counts, strict=True))[:CLASSES_SHOWN])
    more = data.num_classes - CLASSES_SHOWN
    rest = f" and {more:,} more, {min(counts):,} to {max(counts):,} training images each" if more > 0 else ""
    return f"classes: {data.num_classes:,}, by training images {shown}{rest}"
