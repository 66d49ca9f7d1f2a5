"""How long the trials of a study may take together."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass
class TimeLimit:
    """A time, by `time.monotonic`, at which all trials stop; before it, those that would not end by then are not begun.

    `work` and `seconds`: of the trials that have ended.
    """

    ends_at: float = math.inf
    work: float = 0.0
    seconds: float = 0.0

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.ends_at

    def note(self, work: float, seconds: float) -> None:
        """A trial has ended: so much work took so long, next to the others of its time."""
        self.work += work
        self.seconds += seconds

    def leaves_room_for(self, work: float) -> bool:
        """By the mean pace of the trials that have ended; a trial before the first of these is given a chance."""
        expected = work * self.seconds / self.work if self.work else 0.0
        return time.monotonic() + expected < self.ends_at
