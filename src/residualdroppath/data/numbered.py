"""Numbered files of one part, such as train-00003-of-00010: one whole set of them, in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .parts import shortened


class Numbered(NamedTuple):
    """A file with the number in its name, and how many there are by its name."""

    number: int | None
    total: int | None
    path: Path

    @classmethod
    def of_texts(cls, path: Path, number: str | None, total: str | None) -> Numbered:
        return cls(None if number is None else int(number), None if total is None else int(total), path)


def in_order(files: Sequence[Numbered], folder: Path, kind: str) -> list[Path]:
    """Paths by number. Raises `UserError` for two versions of a part, and for numbers that are missing or too many."""
    numbers = {file.number for file in files}
    names = shortened([file.path.name for file in files], 4)
    if len({file.total for file in files}) > 1 or len(numbers) < len(files) or (None in numbers and len(files) > 1):
        raise UserError(f"{folder} holds several versions of one part ({names}); keep one, move the others elsewhere.")
    known = {file.number for file in files if file.number is not None}
    expected = _expected(known, files[0].total)
    if lacking := sorted(set(expected) - known):
        of_all = f" of {files[0].total}" if files[0].total is not None else ""
        raise UserError(
            f"{folder} lacks {kind} files of one part ({names}): number {lacking[0]}{of_all}; fetch the others."
        )
    if extra := sorted(known - set(expected)):
        raise UserError(
            f"{folder} holds {kind} files of one part ({names}) with number {extra[0]}, which is too high for "
            f"{files[0].total} files; move what does not belong to them elsewhere."
        )
    return [file.path for file in sorted(files, key=lambda file: file.number or 0)]


def _expected(numbers: set[int], total: int | None) -> range:
    """From 0 or 1 on where all are counted, else from the lowest to the highest that is there."""
    if not numbers:
        return range(0)
    if total is None:
        return range(min(numbers), max(numbers) + 1)
    from_one = min(numbers) > 0 and total in numbers
    return range(from_one, total + from_one)
