"""The lower bound (`floor` in records): the time of what a plan must compute, each part timed apart and summed.

drop_path:     trunk, trained + for each kept branch: forward, backward
dropped_part:  trunk, frozen, its gradient from the first dropped branch on
               + for each branch below that:  forward without a graph
               + for the first dropped one:   forward, gradient of its parameters alone
               + for each further dropped:    forward, backward
               + for each kept one above:     forward, gradient of its input alone (`parameters`),
                                              forward without a graph (`stop_gradient`)
both:          the optimizer's time on the parameters that learn
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from ...core.planning.plan import Plan

Mode = Literal["trained", "first", "frozen", "no_graph"]
MODES: tuple[Mode, ...] = ("trained", "first", "frozen", "no_graph")


@dataclass
class LowerBound:
    """Seconds of each part, one entry a round."""

    names: tuple[str, ...]
    has_batch_statistics: tuple[bool, ...] = ()
    branches: dict[tuple[int, Mode], list[float]] = field(default_factory=dict)
    dropped_adds: dict[int, list[float]] = field(default_factory=dict)
    trunk: dict[int | None, list[float]] = field(default_factory=dict)  # by the branch its gradient ends at
    updates: dict[int | None, list[float]] = field(default_factory=dict)  # by branch; None: the trunk
    idle_update: list[float] = field(default_factory=list)

    def of_plain(self) -> float:
        """Seconds of an iteration that runs and trains everything."""
        branches = range(len(self.names))
        return self._trunk(None) + sum(self._branch(i, "trained") for i in branches) + self._update([None, *branches])

    def of_plan(self, plan: Plan, freeze: str, rows: int | None = None) -> float:
        """Seconds that an iteration must take; with `rows` the plan is read row by row (`granularity="sample"`)."""
        if rows is not None:
            return self._by_rows(plan, rows)
        indices = range(len(self.names))
        dropped = [index for index in indices if self.names[index] in plan.dropped]
        if plan.kind == "drop_path":
            kept = [index for index in indices if index not in dropped]
            return self._trunk(None) + sum(self._branch(i, "trained") for i in kept) + self._update([None, *kept])
        first = dropped[0]
        passed: Mode = "frozen" if freeze == "parameters" else "no_graph"

        def mode(index: int) -> Mode:
            if index <= first:
                return "first" if index == first else "no_graph"
            return "trained" if index in dropped else passed

        return self._trunk(first) + sum(self._branch(i, mode(i)) for i in indices) + self._update(dropped)

    def _by_rows(self, plan: Plan, rows: int) -> float:
        """Branches with batch statistics run whole; of the others, the rows that the plan needs."""
        shares = plan.mask(rows).double().mean(dim=1).tolist()
        if plan.kind == "drop_path":
            runs_whole = zip(shares, self.has_batch_statistics, strict=True)
            kept = [1.0 if batch and share < 1 else 1 - share for share, batch in runs_whole]
            time = sum(part * self._branch(i, "trained") for i, part in enumerate(kept))
            return self._trunk(None) + time + self._update([None, *(i for i, part in enumerate(kept) if part)])
        dropped = [index for index, share in enumerate(shares) if share]
        time = 0.0
        for i, (share, batch) in enumerate(zip(shares, self.has_batch_statistics, strict=True)):
            learns = 1.0 if batch and share else share
            mode: Mode = "first" if dropped and i == dropped[0] else "trained"
            time += learns * self._branch(i, mode) + (1 - learns) * self._branch(i, "no_graph")
        return self._trunk(dropped[0] if dropped else None) + time + self._update(dropped)

    def _branch(self, index: int, mode: Mode) -> float:
        return fmean(self.branches[index, mode])

    def _trunk(self, first: int | None) -> float:
        """Without the time of the adds themselves: all branches are dropped here."""
        return fmean(self.trunk[first]) - sum(fmean(times) for times in self.dropped_adds.values())

    def _update(self, owners: Sequence[int | None]) -> float:
        idle = fmean(self.idle_update)
        return idle + sum(fmean(self.updates[owner]) - idle for owner in owners)
