"""What tar files hold, and where in them: listed once, so that any image can be read without those before it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from rich.console import Console
from rich.progress import track

from ..errors import UserError, first_line
from .parts import Skipped
from .stored import Piece


def contents(paths: Sequence[Path], skipped: Skipped) -> list[Piece]:
    """The files in tar files and in tar files within them, in their order, without what is hidden.

    Raises `UserError` for tar files that are compressed, damaged or cut.
    """
    console = Console(stderr=True)
    shown = track(
        paths, "reading the contents of tar files", console=console, transient=True, disable=not console.is_terminal
    )
    found: list[Piece] = []
    for path in shown:
        try:
            with path.open("rb") as file:
                found += _members(path, file, "", 0, skipped)
        except (tarfile.TarError, OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read as an uncompressed tar file ({first_line(error)}); fetch it again or unpack it."
            ) from error
    return found


def _members(path: Path, file: BinaryIO, above: str, start: int, skipped: Skipped) -> Iterator[Piece]:
    """Those of the tar file that begins at `start`; the name of one within another is a folder of its members."""
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]: it would keep all of them
            name = above + str(PurePosixPath(member.name))
            if member.isdir():
                continue
            if any(part.startswith(".") for part in PurePosixPath(name).parts):
                skipped.add(path / name, "hidden")
            elif not member.isreg() or member.issparse():
                skipped.add(path / name, "neither a file nor a folder in a tar file")
            elif name.lower().endswith(".tar"):
                inner = tar.extractfile(member)
                assert inner is not None
                yield from _members(path, inner, f"{name[:-4]}/", start + member.offset_data, skipped)  # pyright: ignore[reportArgumentType]
            else:
                yield Piece(path, name, start + member.offset_data, member.size)
        _require_end(file, tar.offset)


def _require_end(file: BinaryIO, offset: int) -> None:
    """Of a tar file that was cut between two members, tarfile says nothing, nor of what follows its end."""
    file.seek(offset)
    if len(first := file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE or first.strip(b"\0"):
        raise ValueError("its end is missing")
    while rest := file.read(1 << 20):
        if rest.strip(b"\0"):
            raise ValueError("it goes on after its end")
