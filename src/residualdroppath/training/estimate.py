"""How long the rest of a training will take, from its first iterations."""

from __future__ import annotations

ITERATIONS = 20
SECONDS, MOST_SECONDS = 5.0, 60.0


class Estimate:
    """Timed after the first iteration, which is slower than those to come: whole cycles, as kinds differ in cost.

    At least 20 iterations and five seconds, or a minute, or what there is of the first epoch.
    """

    def __init__(self, cycle: int):
        self.cycle = cycle
        self.start: tuple[int, float] | None = None

    def restart(self) -> None:
        """After a pause, such as a validation."""
        self.start = None

    def seconds_per_iteration(self, iteration: int, now: float, *, last: bool = False) -> float | None:
        """After this iteration, or None while there is too little to go by; `last` of an epoch."""
        if self.start is None:
            self.start = (iteration, now)
            return None
        first, started = self.start
        timed, elapsed = iteration - first, now - started
        enough = (timed >= ITERATIONS and elapsed >= SECONDS) or elapsed >= MOST_SECONDS
        if not last and (not enough or timed % self.cycle):
            return None
        return elapsed / timed
