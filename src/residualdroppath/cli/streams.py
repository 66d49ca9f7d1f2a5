"""Standard output and error that a command outlives, and that print in any locale."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("residualdroppath")
LOST = (errno.EPIPE, errno.ENOSPC, errno.EIO)  # no reader, a full disk, a terminal that is gone


class OutlivingStream(io.TextIOWrapper):
    """Text that is dropped once it cannot be written any more (`| head -1`); in ASCII, `?` for what that lacks."""

    def __init__(self, stream: io.TextIOWrapper):
        super().__init__(
            stream.buffer, encoding=stream.encoding, errors="replace", line_buffering=stream.line_buffering
        )
        self.label = stream.name
        self.lost = False  # what was printed, for another reason than that nobody reads it

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if error.errno not in LOST:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # what is still in buffers goes there too
        os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            LOGGER.warning("nobody reads %s any more; the command goes on without it", self.label)
        else:
            self.lost = True
            LOGGER.warning("%s cannot be written to (%s); the command goes on without it", self.label, error.strerror)


def outlive_readers() -> None:
    """Make this process's standard output and error `OutlivingStream`s, and print warnings of the package on stderr.

    One that is closed leads nowhere: no file that is opened later gets its number, and what libraries print.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, OutlivingStream(stream))
    assert logging.lastResort is not None
    LOGGER.addHandler(logging.lastResort)


def output_was_lost() -> bool:
    """Whether standard output, which may be all that was asked for, could not be written."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    return getattr(sys.stdout, "lost", False)


def shorten_warnings() -> None:
    """Warnings of the package become one line: where in it they are raised is of no use to who runs a command."""
    usual, package = warnings.formatwarning, f"{Path(__file__).parents[1]}{os.sep}"

    def one_line(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        if not filename.startswith(package):
            return usual(message, category, filename, lineno, line)
        return f"warning: {message}\n"

    warnings.formatwarning = one_line
