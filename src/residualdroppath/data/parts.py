"""The parts of a set: training, validation and test images, their classes, and what was found while reading them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from .image_sources import Encoded
from .images import Split, missing_part

PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
SHOWN = 3  # examples of what was skipped for one reason


@dataclass(frozen=True)
class Source:
    """All training and test images of a set; those of validation, if they are a part of their own.

    `notes` is what a person should know of how the set was read.
    """

    train: Split
    test: Split
    num_classes: int
    channels: int
    image_size: int
    mirrored: bool
    validation: Split | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Skipped:
    """What lies in a folder and is not read, by reason."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.by_reason: dict[str, list[str]] = {}

    def add(self, path: Path | str, reason: str) -> None:
        self.by_reason.setdefault(reason, []).append(Path(path).relative_to(self.folder).as_posix())

    def lines(self) -> list[str]:
        return [f"skipped, {reason}: {shortened(names)}" for reason, names in sorted(self.by_reason.items())]


def shown(folder: Path, pattern: str) -> list[Path]:
    """What matches in a folder, without what is hidden there or below, such as caches."""
    return [
        path
        for path in sorted(folder.glob(pattern))
        if not any(name.startswith(".") for name in path.relative_to(folder).parts)
    ]


def require_file(path: Path) -> Path:
    """Raises `UserError` for what would be waited for without end, such as a pipe, or leads nowhere."""
    if not path.is_file():
        raise UserError(f"{path} is no regular file; remove it.")
    return path


def shortened(names: Sequence[str], shown: int = SHOWN) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def same_text(name: str) -> str:
    """The name of a folder as it is in a locale of UTF-8, whichever is in force; bytes that are not text stay."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def by_part(names: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The name that each part has in `folder`, from a mapping of names to parts; training comes first.

    Raises `UserError` if there is no training part, if nothing is there to choose or test on, or if two names mean
    one part.
    """
    found: dict[str, str] = {}
    for name, part in names.items():
        if part in found:
            raise UserError(
                f"{folder} holds the {part} part twice, as {found[part]} and {name}; move one of them elsewhere."
            )
        found[part] = name
    return {part: found[part] for part in dict.fromkeys(PARTS.values()) if part in found}


def lacking_classes(part: str, labels: Tensor, classes: Sequence[str]) -> list[str]:
    """A note on the classes of which a part holds no image, if any."""
    counts = torch.bincount(labels, minlength=len(classes))
    lacking = [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]
    if not lacking:
        return []
    return [f"the {part} part lacks {len(lacking)} of {len(classes)} classes: {shortened(lacking, 10)}"]


def source_of_parts(
    splits: Mapping[str, Split], classes: Sequence[str], notes: Sequence[str], *, no_test: str
) -> Source:
    """A set of encoded colour images; `no_test` says why it has no test part, where it has none."""
    first = splits["train"].source
    assert isinstance(first, Encoded)
    return Source(
        train=splits["train"],
        test=splits.get("test") or missing_part(no_test),
        num_classes=len(classes),
        channels=first.channels,
        image_size=first.size,
        mirrored=True,
        validation=splits.get("validation"),
        classes=tuple(map(same_text, classes)),
        notes=(_size_note(first), *notes),
    )


def _size_note(images: Encoded) -> str:
    side = f"{images.size}x{images.size}"
    if images.stored_size is None:
        return f"images are resized to {side} pixels as `image_size` has it: the shorter side fits, the centre is kept"
    width, height = images.stored_size
    if width == height:
        return f"images have {side} pixels as stored"
    return f"images have {width}x{height} pixels as stored, of which the centre is kept, {side}"
