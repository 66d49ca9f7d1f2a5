"""Errors that a person can mend: shown as one line, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What is wrong, what was expected, and how to go on."""


def first_line(error: BaseException) -> str:
    """What an error says, short enough to stand inside another's one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of a sentence about an unknown name."""
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    return f"; did you mean {' or '.join(prefix + by_lower[lower] for lower in close)}?" if close else "."


# What torch says on a CPU, the second of sizes beyond 64 bits.
TOO_LARGE = ("can't allocate memory", "Storage size calculation overflowed")


def is_out_of_memory(error: BaseException) -> bool:
    """Of the machine or of a device; torch is not imported to find out."""
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and any(words in str(error) for words in TOO_LARGE))


class Stopped(Exception):
    """What a signal asked for is done: all is saved, and the process ends with `exit_code`."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code
