"""When a training is saved or stopped between two iterations, the same in all processes."""

from __future__ import annotations

import time

from .processes import Processes
from .recipe import TrainConfig
from .stopping import StopRequest

LOOKS_TOGETHER = 10  # iterations between two looks at clocks and signals that several processes take together


class SavingTimes:
    """What is due after an iteration: a checkpoint by number of iterations or by clock, or the end by a signal."""

    def __init__(self, config: TrainConfig, processes: Processes, stop: StopRequest):
        self.every = config.checkpoint_every
        self.seconds = None if config.checkpoint_minutes is None else 60 * config.checkpoint_minutes
        self.processes = processes
        self.stop = stop
        self.signal = 0  # the one that all processes know of
        self.saved = time.monotonic()

    def note_saved(self) -> None:
        self.saved = time.monotonic()

    def due(self, iteration: int) -> bool:
        """Whether to save after this iteration; `signal` is then known to be there or not."""
        by_number = self.every is not None and iteration % self.every == 0
        if self.processes.count > 1 and iteration % LOOKS_TOGETHER:
            return by_number
        by_clock = self.seconds is not None and time.monotonic() - self.saved >= self.seconds
        number, late = self.processes.largest(self.stop.number, by_clock)
        self.signal = int(number)
        return by_number or bool(late) or self.signal != 0
