"""Parquet files of encoded images, as Hugging Face lays them out or with a plain column of bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .labelled import Part, labelled_source, same_numbers
from .numbered import Numbered, in_order
from .parquet_columns import bytes_of, class_names_of, find_image_column, reading, require_columns
from .parts import PARTS, Skipped, Source, by_part, require_file, shown
from .request import Request

# train.parquet, train-3.parquet, train-00000-of-00002.parquet, and the last with a digest behind it
_FILE = re.compile(rf"({'|'.join(PARTS)})(?:[-_](\d+)(?:-of-(\d+)(?:-[0-9a-f]{{16}})?)?)?\.parquet")


def parquet_folder(folder: Path) -> Path | None:
    """`folder`, or `data/` in it as on the Hugging Face hub, whichever holds Parquet files."""
    return next((place for place in (folder, folder / "data") if shown(place, "*.parquet")), None)


def read_parquet(folder: Path, request: Request) -> Source:
    """Labels are the places of the training part's labels in their order. Nothing is decoded yet."""
    skipped = Skipped(folder)
    files = files_of_parts(folder, skipped)
    column, notes = (request.image_column, []) if request.image_column else find_image_column(files["train"])
    parts = {part: _read(part, paths, column, request.label_column) for part, paths in files.items()}
    notes += skipped.lines()
    return labelled_source(parts, str(folder), request, notes, no_test="there is no test*.parquet")


def files_of_parts(folder: Path, skipped: Skipped) -> dict[str, list[Path]]:
    """The files of each part in order of their numbers. Raises `UserError` for files that are missing or too many."""
    files = files_by_name(folder, skipped)
    parts = by_part({name: PARTS[name] for name in files}, folder)
    if "train" not in parts or len(parts) < 2:
        missing = "test" if "train" in parts else "train"
        raise UserError(f"{folder} must hold train*.parquet and test*.parquet (or val*); {missing}* is missing.")
    return {part: files[name] for part, name in parts.items()}


def files_by_name(folder: Path, skipped: Skipped) -> dict[str, list[Path]]:
    """As `files_of_parts`, by the names of parts that are there, whichever they are."""
    shards: dict[str, list[Numbered]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is None:
            skipped.add(path, "hidden" if path.name.startswith(".") else "not named as a file of a part")
        else:
            part, *numbers = match.groups()
            shards.setdefault(part, []).append(Numbered.of_texts(require_file(path), *numbers))
    return {name: in_order(files, folder, "Parquet") for name, files in shards.items()}


def _read(part: str, files: Sequence[Path], image_column: str, label_column: str) -> Part:
    import pyarrow as pa

    columns = list(dict.fromkeys((image_column, label_column)))
    class_names = [class_names_of(require_columns(path, image_column, label_column), label_column) for path in files]
    with reading(files[0]):
        _require_memory(files, columns)
    tables = [_table(path, columns) for path in files]
    with reading(files[0]):
        images = pa.concat_tables([table.select([image_column]) for table in tables])[image_column]
    encoded = [bytes_of(image) for image in images.to_pylist()]
    if not all(isinstance(image, bytes) for image in encoded):
        raise UserError(f"`image_column` {image_column!r} of {files[0]} holds rows that are not encoded images.")
    labels: list[int | str] = []
    for path, table, names in zip(files, tables, class_names, strict=True):
        of_file = table[label_column].to_pylist()
        if any(label is None for label in of_file):
            raise UserError(f"`label_column` {label_column!r} of {path} has rows without a label; remove them.")
        if not all(isinstance(label, (int, str)) for label in of_file):
            raise UserError(f"`label_column` {label_column!r} of {path} must hold whole numbers or texts.")
        labels += same_numbers(of_file, names, class_names[0], str(path))
    names = [f"{files[0].parent}/{part} row {row}" for row in range(len(labels))]
    return Part(encoded, names, labels, str(files[0]), class_names[0])


def _table(path: Path, columns: Sequence[str]) -> Any:
    import pyarrow.parquet as pq

    with reading(path):
        return pq.read_table(path, columns=columns)


def _require_memory(files: Sequence[Path], columns: Sequence[str]) -> None:
    import pyarrow.parquet as pq

    size = 0
    for path in files:
        metadata = pq.read_metadata(path)
        chunks = [
            metadata.row_group(group).column(column)
            for group in range(metadata.num_row_groups)
            for column in range(metadata.num_columns)
        ]
        size += sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
    if size > (memory := os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / 2:
        raise UserError(
            f"The images of {files[0].parent} take {size / 2**30:.1f} GiB, this machine has {memory / 2**30:.1f}; name "
            f"the folder as `data` hfds/{files[0].parent}, which leaves them on disk."
        )
