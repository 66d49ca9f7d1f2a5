"""Images that are read when they are needed: files, parts of files, rows of tables."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from ..errors import UserError

ROWS_OF_A_SHARD = 1024  # tables have no files that one would notice


class Stored(Protocol):
    """The encoded bytes of one image, in a place from which any can be read; processes may share it."""

    def read(self) -> bytes: ...

    @property
    def identity(self) -> str:
        """The same wherever the data are moved to, and known without reading them: name and size."""
        ...

    @property
    def shard(self) -> str:
        """What is best read from front to back, such as a tar file, with others of the same."""
        ...


Item = Path | bytes | Stored


class Piece(NamedTuple):
    """A member of a tar file."""

    path: Path
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        # Opened each time: the position in a file that stays open would be shared with workers.
        with self.path.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) != self.size:
            raise UserError(f"{self.path} ends within {self.name}; it was cut since its contents were listed.")
        return content

    @property
    def identity(self) -> str:
        return f"{self.path.name}/{self.name} {self.size}"

    @property
    def shard(self) -> str:
        return str(self.path)


class Table(ABC):
    """Rows with an image each, of known sizes in bytes."""

    def __init__(self, sizes: Sequence[int]):
        self.sizes = sizes

    @abstractmethod
    def read(self, row: int) -> bytes: ...


class Row(NamedTuple):
    table: Table
    number: int

    def read(self) -> bytes:
        return self.table.read(self.number)

    @property
    def identity(self) -> str:
        return f"{self.number} {self.table.sizes[self.number]}"

    @property
    def shard(self) -> str:
        return str(self.number // ROWS_OF_A_SHARD)


def file_of(item: Item) -> Path | BinaryIO:
    """What an image is decoded from."""
    if isinstance(item, Path):
        return item
    return io.BytesIO(item if isinstance(item, bytes) else item.read())


def identity_of(item: Item) -> bytes:
    """Bytes by themselves; of what is elsewhere, name and size."""
    if isinstance(item, bytes):
        return item
    named = f"{item.name} {item.stat().st_size}" if isinstance(item, Path) else item.identity
    return named.encode("utf-8", "surrogateescape")  # names need not be text, nor known to the locale
