"""Places for results, checked before hours of work and not after."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .files import CannotWrite, require_unused


def require_folder(path: Path, *, resume: bool | None = None, otherwise: str = "") -> None:
    """`path` can become the folder of a run. Raises `UserError` with the reason; nothing is made.

    Args:
        resume: whether the run that is there is resumed; None where there is no such option.
        otherwise: what can be done but to choose another folder, for the message.
    """
    if not resume:
        require_unused(path, otherwise if resume is None else ", or `resume` the run in it")
    require_place(path, "out")


def require_record(
    path: Path,
    option: str = "record",
    *,
    overwrite: bool = False,
    own: Callable[[Any], bool] = lambda record: False,
    outside: Sequence[Path] = (),
) -> None:
    """A JSON record can be written to `path`. Raises `UserError` with the reason; nothing is made.

    Args:
        option: that `path` was given by.
        overwrite: whatever is there may be replaced.
        own: whether a record that is there is of what goes on, and so may be replaced.
        outside: folders that it may not be in: their own files could have its name.
    """
    if path.suffix != ".json":
        raise UserError(f"`{option}` must name a file that ends in .json, got {path}.")
    parent = path.parent.resolve()
    for folder in outside:
        if parent.is_relative_to(folder.resolve()):
            raise UserError(
                f"`{option}` must name a file outside of {folder}, whose files the command writes, got {path}."
            )
    require_free(path, option, overwrite=may_replace(path, overwrite=overwrite, own=own))
    require_place(path.parent, option)


def may_replace(path: Path, *, overwrite: bool, own: Callable[[Any], bool]) -> bool:
    """Whether what is at `path`, if anything, may be replaced: asked for, or a record that is `own`."""
    return overwrite or (path.is_file() and _is_own(path, own))


def require_file(path: Path, suffix: str, option: str = "out", *, overwrite: bool = False) -> None:
    """A file of that suffix can be written to `path`. Raises `UserError` with the reason; nothing is made."""
    if path.suffix != suffix:
        raise UserError(f"`{option}` must name a file that ends in {suffix}, got {path}.")
    require_free(path, option, overwrite=overwrite)
    require_place(path.parent, option)


def require_free(path: Path, option: str, *, overwrite: bool) -> None:
    """`path` is no folder, and no file unless it may be replaced."""
    if path.is_dir():
        raise UserError(f"`{option}` must name a file, got the folder {path}.")
    if os.path.lexists(path) and not overwrite:
        raise UserError(f"{path} is there already; choose another `{option}`, or --overwrite it.")


def _is_own(path: Path, own: Callable[[Any], bool]) -> bool:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and own(record)


def require_place(folder: Path, option: str) -> None:
    """Files can be made in `folder`, or in the nearest one above that exists. Raises `UserError` with the reason."""
    nearest = folder.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):  # permissions alone do not know of disks mounted to be read
            pass
    except OSError as error:
        raise CannotWrite(f"{folder} cannot be written to ({error.strerror}); choose another `{option}`.") from error
