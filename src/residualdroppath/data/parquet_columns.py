"""The columns of Parquet files: which one holds the images, and what Hugging Face datasets noted of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import UserError, first_line
from .decoding import opens

ROWS_AT_ONCE = 16
TRIED = 8  # values of a column, of which one must be an image


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises `UserError` for what is not Parquet."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({first_line(error)}); fetch it again.") from error


def features_of(schema: Any) -> dict[str, Any]:
    """What Hugging Face datasets wrote of each column; nothing for files of others."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {name: kind for name, kind in features.items() if isinstance(kind, dict)}
    except (TypeError, KeyError, ValueError, AttributeError):
        return {}


def class_names_of(schema: Any, column: str) -> list[str]:
    """The names of the classes by their numbers, if they were noted."""
    names = features_of(schema).get(column, {}).get("names")
    return [str(name) for name in names] if isinstance(names, list) else []


def find_image_column(files: Sequence[Path]) -> tuple[str, list[str]]:
    """The column that is marked as one of images, or else the only one of bytes, or the only one that holds images.

    With it a note, if there was a choice or another name than expected. Raises `UserError` where it is not one alone.
    """
    import pyarrow.parquet as pq

    with reading(files[0]):
        schema = pq.read_schema(files[0])
    of_bytes = [name for name in schema.names if _holds_bytes(schema.field(name).type)]
    features = features_of(schema)
    marked = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    found = marked or of_bytes
    if len(found) > 1 and not marked:
        found = [name for name in found if _holds_images(files, name)] or found
    if len(found) != 1:
        what = f"{' and '.join(found)} could be" if found else "none holds bytes"
        raise UserError(
            f"`image_column` must name the column of encoded images in {files[0]}: {what}; its columns are "
            f"{', '.join(schema.names)}."
        )
    column = found[0]
    others = [name for name in of_bytes if name != column]
    beside = f", not from {' or '.join(others)}" if others else ""
    return column, [f"images are read from the column {column}{beside}"] if others or column != "image" else []


def require_columns(path: Path, image_column: str, label_column: str) -> Any:
    """The schema of a file that has both columns."""
    import pyarrow.parquet as pq

    with reading(path):
        schema = pq.read_schema(path)
    if label_column not in schema.names:
        raise UserError(f"`label_column` {label_column!r} is not in {path}; its columns are {', '.join(schema.names)}.")
    if image_column not in schema.names:
        raise UserError(
            f"`image_column` must name a column of encoded images in {path}, got {image_column!r}; its columns are "
            f"{', '.join(schema.names)}. Files of all parts must have the same columns."
        )
    return schema


def bytes_of(image: Any) -> Any:
    """Those of a struct, as Hugging Face datasets stores images, or the value itself."""
    return image.get("bytes") if isinstance(image, dict) else image


def _holds_images(files: Sequence[Path], column: str) -> bool:
    """By the first values that are there: a row may lack one, or hold a damaged one."""
    return any(opens(value) for value in islice(_values(files, column), TRIED))


def _values(files: Sequence[Path], column: str) -> Iterator[bytes]:
    import pyarrow.parquet as pq

    for path in files:
        with reading(path):
            if column not in pq.read_schema(path).names:
                continue
            for batch in pq.ParquetFile(path).iter_batches(batch_size=ROWS_AT_ONCE, columns=[column]):
                values = (bytes_of(value) for value in batch.column(0).to_pylist())
                yield from (value for value in values if isinstance(value, bytes))


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if isinstance(kind, pa.StructType):  # how Hugging Face datasets store images
        return any(field.name == "bytes" for field in kind)
    return kind in (pa.binary(), pa.large_binary())
