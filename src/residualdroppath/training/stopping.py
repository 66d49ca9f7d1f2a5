"""Signals that end a training between two iterations, its state saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """The signal that asked for the end, if one has come."""

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def listening(self, *, active: bool = True) -> Iterator[None]:
        """Inside, SIGINT, SIGTERM and SIGUSR1 are noted; a second SIGINT interrupts at once. In the main thread."""
        before = {number: signal.signal(number, self._note) for number in SIGNALS if active}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.number = number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)


def stopped_by(number: int, iteration: int) -> Stopped:
    """The exception that ends the command once the state is saved."""
    name = signal.Signals(number).name
    return Stopped(f"stopped by {name}: iteration {iteration:,} is kept; add --resume to go on", 128 + number)
