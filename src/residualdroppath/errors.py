"""Errors that a person can mend: shown as one line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """What is wrong, what was expected, and how to go on."""


def first_line(error: BaseException) -> str:
    """What an error says, short enough to stand inside another's one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


class Stopped(Exception):
    """What a signal asked for is done: all is saved, and the process ends with `exit_code`."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code
