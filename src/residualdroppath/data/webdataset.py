"""Samples as WebDataset stores them in tar files: files of one name, of which one is the image and one the label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..errors import UserError
from .folders import readable_suffixes
from .labelled import Part
from .request import Request
from .stored import Piece

CLASS_NAMES = "classes.txt"


def samples_of(pieces: Sequence[Piece], folder: Path, request: Request) -> Part:
    """Those of a part; a name counts up to its first dot, and within one tar file."""
    samples: dict[tuple[Path, str], dict[str, Piece]] = {}
    for piece in pieces:
        name = PurePosixPath(piece.name)
        stem, _, suffix = name.name.partition(".")
        sample = samples.setdefault((piece.path, str(name.parent / stem)), {})
        if sample.setdefault(suffix.lower(), piece) is not piece:
            raise UserError(f"{piece.path} holds {piece.name} twice; remove one.")
    readable = readable_suffixes()
    items: list[Piece] = []
    labels: list[int | str] = []
    for (path, key), sample in samples.items():
        images = [piece for suffix, piece in sample.items() if readable.get(f".{suffix.rpartition('.')[2]}")]
        if len(images) != 1:
            raise UserError(
                f"The sample {key} of {path} must hold one image, got {len(images)} among {', '.join(sample)}."
            )
        items += images
        labels.append(_label(path, key, sample, request.label_column))
    names = [f"{piece.path}/{piece.name}" for piece in items]
    return Part(items, names, labels, f"{folder}, samples", _class_names(folder))


def _label(path: Path, key: str, sample: dict[str, Piece], column: str) -> int | str:
    try:
        if (piece := sample.get("cls")) is not None:
            return int(piece.read())
        label = json.loads(sample["json"].read())[column]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"The sample {key} of {path} must hold a .cls file with a whole number, or a .json file with "
            f"`label_column` {column!r} ({type(error).__name__})."
        ) from error
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise UserError(f"`label_column` {column!r} of the sample {key} of {path} must hold a whole number or a text.")
    return label


def _class_names(folder: Path) -> list[str]:
    """A line for each class, by its number, the name behind what else may stand before a tab."""
    path = folder / CLASS_NAMES
    if not path.is_file():
        return []
    try:
        return [line.rpartition("\t")[2].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as names of classes ({error}); mend it or remove it.") from error
