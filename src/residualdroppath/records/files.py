"""Files that survive a kill: written whole or not at all, held by one process, read with their damage reported."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from ..errors import UserError

LOCK = ".lock"


class InUse(UserError):
    """Another process holds the folder."""


class CannotWrite(UserError):
    """A full disk, or a place where one may not write."""


class Taken(UserError):
    """Another process made the file first; what was to be written is `kept` next to it."""

    def __init__(self, path: Path, kept: Path):
        super().__init__(
            f"{path} was made by another command in the meantime, and is left as it is; the result is in {kept}."
        )
        self.kept = kept


@contextmanager
def locked(
    path: Path,
    *below: Path,
    in_use: str = "a run that still goes on; wait for it or stop it",
    new: bool = False,
) -> Iterator[None]:
    """Make a folder, and those `below` it, and hold it for this process alone; raises `UserError` with the reason.

    With `new`, the folder must not exist or be empty, and nothing stays of it if nothing is written to it.
    """
    if new:
        require_unused(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise InUse(f"{path} is in use by {in_use}.") from error
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written to ({error}); choose another `out`.") from error
    try:
        if new:
            require_unused(path)  # another process may have come first, and ended
        for folder in below:
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        if new and path.is_dir() and list(path.iterdir()) == [path / LOCK]:
            (path / LOCK).unlink()
            for folder in made:
                with suppress(OSError):  # of somebody else by now
                    folder.rmdir()
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds the folder. Nothing is made or changed."""
    try:
        with (path / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock was ever taken, or it cannot be looked at
        return False
    return False


def require_unused(path: Path, otherwise: str = ", or `resume` the run in it") -> None:
    """A new run starts in a folder that does not exist, or is empty; what to do `otherwise` is for the message."""
    if path.exists() and (not path.is_dir() or any(each.name != LOCK for each in path.iterdir())):
        raise UserError(f"{path} is in use; choose another `out`{otherwise}.")


@contextmanager
def replacing(path: Path, *, new: bool = False) -> Iterator[Path]:
    """A path to write to; the file there takes the place of `path` if no error is raised, and is removed if one is.

    With `new` it replaces nothing: raises `Taken` if there is something by then, the file kept under a free name.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two processes do not write to one file
    try:
        partial.touch()
        mode = S_IMODE(partial.stat().st_mode)
        yield partial
        partial.chmod(mode)  # some libraries make files that their owner alone may read
        if new:
            _move_to_new(partial, path)
        else:
            os.replace(partial, path)
    except OSError as error:
        raise CannotWrite(
            f"{path} cannot be written ({error.strerror or error}); free some space, or choose another place."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _move_to_new(partial: Path, path: Path) -> None:
    if _became(partial, path):
        return
    others = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    raise Taken(path, next(other for other in others if _became(partial, other)))


def _became(partial: Path, path: Path) -> bool:
    """Whether `partial` is at `path` now; not if anything was there. No other process can come between."""
    try:
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            path.touch(exist_ok=False)
            os.replace(partial, path)
    except FileExistsError:
        return False
    return True


@contextmanager
def reporting_damage(path: Path) -> Iterator[None]:
    """Errors of reading `path` as a `UserError`."""
    try:
        yield
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({_reason(error)}). Nothing was changed; put back a whole copy, or start anew with "
            "another `out`."
        ) from error


def write_text(path: Path, text: str, *, new: bool = False) -> None:
    with replacing(path, new=new) as partial:
        # An argument that the locale cannot decode keeps its bytes.
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path, value: Any, *, new: bool = False) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n", new=new)


def write_record(path: Path, record: dict[str, Any], *, new: bool = False) -> None:
    """`write_json`, in a folder that is made if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record, new=new)


def read_json(path: Path, kind: Any = Any) -> Any:
    """The content of a file, checked to be of a type such as `dict[str, Any]`."""
    with reporting_damage(path):
        return parse_json(path.read_text(encoding="utf-8"), kind)


def parse_json(text: str, kind: Any) -> Any:
    """`read_json` of a text. Raises `ValueError` or `RecursionError`."""
    return TypeAdapter(kind).validate_python(json.loads(text))


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]
