"""Standard output and error that a command outlives, and that print in any locale."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("residualdroppath")


class OutlivingStream(io.TextIOWrapper):
    """Text that is dropped once nobody reads it any more (`| head -1`); in ASCII, `?` for what that lacks."""

    def __init__(self, stream: io.TextIOWrapper):
        super().__init__(
            stream.buffer, encoding=stream.encoding, errors="replace", line_buffering=stream.line_buffering
        )
        self.label = stream.name

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # what is still in buffers goes there too
        os.close(nowhere)
        LOGGER.warning("nobody reads %s any more; the command goes on without it", self.label)


def outlive_readers() -> None:
    """Make this process's standard output and error `OutlivingStream`s, and print warnings of the package on stderr."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, OutlivingStream(stream))
    assert logging.lastResort is not None
    LOGGER.addHandler(logging.lastResort)


def shorten_warnings() -> None:
    """Warnings of the package become one line: where in it they are raised is of no use to who runs a command."""
    usual, package = warnings.formatwarning, f"{Path(__file__).parents[1]}{os.sep}"

    def one_line(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        if not filename.startswith(package):
            return usual(message, category, filename, lineno, line)
        return f"warning: {message}\n"

    warnings.formatwarning = one_line
