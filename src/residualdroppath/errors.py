"""Errors that a person can mend: shown as one line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """What is wrong, what was expected, and how to go on."""
