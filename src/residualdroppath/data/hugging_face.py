"""`hfds/NAME`: sets of the Hugging Face hub, or in a folder, read by `datasets`, which keeps them on disk as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean, first_line
from ..records.paths import expanded
from .labelled import Part, labelled_source
from .parquet import files_by_name, parquet_folder
from .parts import PARTS, Skipped, Source, by_part
from .request import Request
from .stored import Row, Table

BATCH = 1024  # rows of which sizes are taken at once
SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves in a folder


class _Images(Table):
    """The images of a table that lies on disk."""

    def __init__(self, table: Any, column: str):
        self.images = table.select_columns(column)
        self.column = column
        super().__init__(_sizes(self.images, column))

    def read(self, row: int) -> bytes:
        image = self.images[row][self.column]
        return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


def read_rows(name: str, request: Request) -> Source:
    """The splits of a set that are parts; its classes and columns as `datasets` knows them."""
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "`data` hfds/... needs the library `datasets`: pip install 'residualdroppath[hfds]'."
        ) from error
    folder = expanded(name)
    where = str(folder) if folder.exists() else name
    datasets.disable_progress_bars()
    try:
        if any((folder / saved).is_file() for saved in SAVED):
            loaded = datasets.load_from_disk(str(folder))
        else:
            if folder.is_dir() and (files := parquet_folder(folder)) is not None:
                files_by_name(files, Skipped(files))  # `datasets` would not miss one, and would wait for a pipe
            config = datasets.DownloadConfig(local_files_only=not (request.download or folder.exists()))
            loaded = datasets.load_dataset(where, download_config=config)
    except UserError:
        raise
    except Exception as error:  # of any library that reads one of the many formats
        hint = "" if request.download or folder.exists() else ", or allow `download`"
        raise UserError(f"{name} cannot be read by `datasets` ({first_line(error)}); check the name{hint}.") from error
    if not isinstance(loaded, datasets.DatasetDict):
        raise UserError(f"{where} must hold the splits train and test (or validation), it holds one table alone.")
    splits = {str(name): table for name, table in loaded.items()}
    names = by_part({split: PARTS[split] for split in splits if split in PARTS}, Path(where))
    if "train" not in names or len(names) < 2:
        raise UserError(f"{where} must hold the splits train and test (or validation), got {', '.join(splits)}.")
    notes = [f"skipped, neither train, val nor test: split {split}" for split in splits if split not in PARTS]
    column = _image_column(splits[names["train"]], f"{where}, {names['train']}", request)
    parts = {
        part: _part(splits[split], f"{where}, {split}", column, request.label_column) for part, split in names.items()
    }
    return labelled_source(parts, where, request, notes, no_test="there is no split test")


def _image_column(table: Any, title: str, request: Request) -> str:
    import datasets  # pyright: ignore[reportMissingImports]

    kinds = table.features
    images = [name for name, kind in kinds.items() if isinstance(kind, datasets.Image)] or [
        name for name, kind in kinds.items() if getattr(kind, "dtype", "") in ("binary", "large_binary")
    ]
    column = request.image_column or (images[0] if len(images) == 1 else None)
    if column is None:
        raise _no_image_column(title, column, kinds)
    return column


def _no_image_column(title: str, column: str | None, kinds: Any) -> UserError:
    return UserError(
        f"`image_column` must name the column of images of {title}, got {column!r}; its columns are {', '.join(kinds)}."
    )


def _part(table: Any, title: str, image_column: str, label_column: str) -> Part:
    import datasets  # pyright: ignore[reportMissingImports]

    kinds = table.features
    if image_column not in kinds:
        raise _no_image_column(title, image_column, kinds)
    if label_column not in kinds:
        known = did_you_mean(label_column, kinds)
        raise UserError(f"`label_column` {label_column!r} is not in {title}; its columns are {', '.join(kinds)}{known}")
    labels = list(table[label_column])
    if not all(isinstance(label, int | str) for label in labels):
        raise UserError(f"`label_column` {label_column!r} of {title} must hold whole numbers or texts.")
    rows = _Images(table.cast_column(image_column, datasets.Image(decode=False)), image_column)
    return Part(
        [Row(rows, number) for number in range(len(labels))],
        [f"{title}, row {number}" for number in range(len(labels))],
        labels,
        title,
        getattr(kinds[label_column], "names", None) or (),
    )


def _sizes(images: Any, column: str) -> Sequence[int]:
    """Of all images, by the places where they begin and end, without reading them."""
    import pyarrow.compute as pc

    found: list[int] = []
    for batch in images.with_format("arrow").iter(batch_size=BATCH):
        image = batch[column].combine_chunks()
        sizes = pc.binary_length(pc.struct_field(image, "bytes"))  # pyright: ignore[reportAttributeAccessIssue]
        paths = pc.struct_field(image, "path")  # pyright: ignore[reportAttributeAccessIssue]
        found += [
            Path(path.as_py()).stat().st_size if size.as_py() is None else size.as_py()
            for size, path in zip(sizes, paths, strict=True)
        ]
    return found
