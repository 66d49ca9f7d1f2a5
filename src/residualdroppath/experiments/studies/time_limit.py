"""How long the trials of a study may take together."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass
class TimeLimit:
    """A time, by `time.monotonic`, at which all trials stop; before it, those that would not end by then are not begun.

    `pace`: seconds for one of work, of the trial that ended last; the first ones of a process also read the data.
    """

    ends_at: float = math.inf
    pace: float = 0.0

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.ends_at

    def note(self, work: float, seconds: float) -> None:
        """A trial has ended: so much work took so long, next to the others of its time."""
        self.pace = seconds / work

    def leaves_room_for(self, work: float) -> bool:
        """Whether a trial would end in time; before any other has ended, each is given a chance."""
        return time.monotonic() + work * self.pace < self.ends_at
