"""How experiments report where they are."""

from __future__ import annotations

from collections.abc import Callable

# What is being done, how much of it is done, and of how much.
OnProgress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """For callers that show none."""
