"""`tfds/FOLDER`: sets that TensorFlow Datasets has prepared, read without TensorFlow."""

from __future__ import annotations

from typing import Any

from ..errors import UserError, first_line
from ..records.paths import expanded
from .labelled import Part, labelled_source
from .parts import PARTS, Source, by_part
from .request import Request
from .stored import Row, Table


class _Images(Table):
    """Encoded images of a source of records, which are read one by one."""

    def __init__(self, records: Any, column: str, sizes: list[int]):
        self.records = records
        self.column = column
        super().__init__(sizes)

    def read(self, row: int) -> bytes:
        return self.records[row][self.column]


def read_rows(name: str, request: Request) -> Source:
    """The splits of a prepared set that are parts. All records are read once, for their labels."""
    try:
        import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("`data` tfds/... needs TensorFlow Datasets: pip install 'residualdroppath[tfds]'.") from error
    folder = expanded(name)
    found = sorted(path.parent for path in (*folder.glob("dataset_info.json"), *folder.glob("*/dataset_info.json")))
    if len(found) != 1:
        what = f"got {len(found)} versions, name one of them" if found else "which is not there"
        raise UserError(f"`data` tfds/FOLDER must name a prepared set, with dataset_info.json, {what}: {folder}.")
    try:
        builder = tfds.builder_from_directory(found[0])
        splits = list(builder.info.splits)
        names = by_part({split: PARTS[split] for split in splits if split in PARTS}, folder)
        if "train" not in names or len(names) < 2:
            raise UserError(f"{folder} must hold the splits train and test (or validation), got {', '.join(splits)}.")
        parts = {part: _part(tfds, builder, split, f"{folder}, {split}", request) for part, split in names.items()}
    except UserError:
        raise
    except Exception as error:  # of the libraries that read one of several formats
        raise UserError(
            f"{folder} cannot be read by TensorFlow Datasets ({first_line(error)}); it must have been prepared with "
            "file_format='array_record', of which any record can be read."
        ) from error
    notes = [f"skipped, neither train, val nor test: split {split}" for split in splits if split not in PARTS]
    return labelled_source(parts, str(folder), request, notes, no_test="there is no split test")


def _part(tfds: Any, builder: Any, split: str, title: str, request: Request) -> Part:
    kinds = dict(builder.info.features.items())
    images = [name for name, kind in kinds.items() if isinstance(kind, tfds.features.Image)]
    column = request.image_column or (images[0] if len(images) == 1 else None)
    if column is None or column not in images:
        raise UserError(
            f"`image_column` must name the column of images of {title}, got {request.image_column!r}; its columns "
            f"are {', '.join(kinds)}."
        )
    if not isinstance(kinds.get(request.label_column), tfds.features.ClassLabel):
        raise UserError(
            f"`label_column` {request.label_column!r} is no column of classes of {title}; its columns are "
            f"{', '.join(kinds)}."
        )
    records = builder.as_data_source(split=split, decoders={column: tfds.decode.SkipDecoding()})
    labels: list[int | str] = []
    sizes: list[int] = []
    for record in records:
        labels.append(int(record[request.label_column]))
        sizes.append(len(record[column]))
    rows = _Images(records, column, sizes)
    return Part(
        [Row(rows, number) for number in range(len(labels))],
        [f"{title}, row {number}" for number in range(len(labels))],
        labels,
        title,
        kinds[request.label_column].names or (),
    )
