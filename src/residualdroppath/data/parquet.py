"""Parquet files of encoded images, as Hugging Face lays them out or with a plain column of bytes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, first_line
from .decoding import opens
from .labelled import Part, labelled_source
from .numbered import Numbered, in_order
from .parts import PARTS, Skipped, Source, by_part
from .request import Request

# train.parquet, train-3.parquet, train-00000-of-00002.parquet, and the last with a digest behind it
_FILE = re.compile(rf"({'|'.join(PARTS)})(?:[-_](\d+)(?:-of-(\d+)(?:-[0-9a-f]{{16}})?)?)?\.parquet")


def parquet_folder(folder: Path) -> Path | None:
    """`folder`, or `data/` in it as on the Hugging Face hub, whichever holds Parquet files."""
    return next((place for place in (folder, folder / "data") if any(place.glob("*.parquet"))), None)


def read_parquet(folder: Path, request: Request) -> Source:
    """Labels are the places of the training part's labels in their order. Nothing is decoded yet."""
    skipped = Skipped(folder)
    files = files_of_parts(folder, skipped)
    parts = {part: _read(part, paths, request) for part, paths in files.items()}
    return labelled_source(parts, str(folder), request, skipped.lines(), no_test="there is no test*.parquet")


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
        elif not path.is_file():  # a pipe would be waited for without end
            raise UserError(f"{path} is no regular file; remove it.")
        else:
            part, *numbers = match.groups()
            shards.setdefault(part, []).append(Numbered.of_texts(path, *numbers))
    return {name: in_order(files, folder, "Parquet") for name, files in shards.items()}


def _read(part: str, files: Sequence[Path], request: Request) -> Part:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(files[0])
        if request.label_column not in schema.names:
            raise UserError(
                f"`label_column` {request.label_column!r} is not in {files[0]}; its columns are "
                f"{', '.join(schema.names)}."
            )
        features = _features(schema)
        image_column = request.image_column or _image_column(files[0], schema, features)
        if image_column not in schema.names:
            raise UserError(
                f"`image_column` must name a column of encoded images in {files[0]}, got {image_column!r}; its columns "
                f"are {', '.join(schema.names)}."
            )
        columns = list(dict.fromkeys((image_column, request.label_column)))
        _require_memory(files, columns)
        table = pa.concat_tables([pq.read_table(path, columns=columns) for path in files])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{files[0]} cannot be read as Parquet ({first_line(error)}); fetch it again.") from error
    encoded = [_bytes(image) for image in table[image_column].to_pylist()]
    if not all(isinstance(image, bytes) for image in encoded):
        raise UserError(f"`image_column` {image_column!r} of {files[0]} holds rows that are not encoded images.")
    labels = table[request.label_column].to_pylist()
    if any(label is None for label in labels):
        raise UserError(f"`label_column` {request.label_column!r} of {files[0]} has rows without a label; remove them.")
    if not all(isinstance(label, (int, str)) for label in labels):
        raise UserError(f"`label_column` {request.label_column!r} of {files[0]} must hold whole numbers or texts.")
    names = [f"{files[0].parent}/{part} row {row}" for row in range(len(labels))]
    return Part(encoded, names, labels, str(files[0]), features.get(request.label_column, {}).get("names") or ())


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


def _features(schema: Any) -> dict[str, Any]:
    """What Hugging Face datasets wrote of each column; nothing for files of others."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {name: kind for name, kind in features.items() if isinstance(kind, dict)}
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}


def _image_column(path: Path, schema: Any, features: dict[str, Any]) -> str:
    """The column that is marked as one of images, or else the only one of bytes, or the only one that holds images."""
    import pyarrow.parquet as pq

    marked = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    found = marked or [name for name in schema.names if _holds_bytes(schema.field(name).type)]
    if len(found) > 1 and not marked:
        first = next(pq.ParquetFile(path).iter_batches(batch_size=1, columns=found), None)
        rows = first.to_pylist() if first is not None else [{}]
        found = [
            name for name in found if isinstance(image := _bytes(rows[0].get(name)), bytes) and opens(image)
        ] or found
    if len(found) != 1:
        what = f"{' and '.join(found)} could be" if found else "none holds bytes"
        raise UserError(
            f"`image_column` must name the column of encoded images in {path}: {what}; its columns are "
            f"{', '.join(schema.names)}."
        )
    return found[0]


def _bytes(image: Any) -> Any:
    return image.get("bytes") if isinstance(image, dict) else image


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if isinstance(kind, pa.StructType):  # how Hugging Face datasets store images
        return any(field.name == "bytes" for field in kind)
    return kind in (pa.binary(), pa.large_binary())
