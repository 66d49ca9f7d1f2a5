"""What one iteration does: a pure function from (options, iteration) to a `Plan`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

from torch import Tensor

from ..options import Granularity, RateOverDepth, Schedule
from .draws import draw_dropped, draw_row, effective_rates, uniform_row

Kind = Literal["drop_path", "dropped_part"]


@dataclass(frozen=True)
class PlanOptions:
    """All that a plan depends on beside the iteration.

    `names` and `drop_rates` (nominal, each in [0, 1)) are per branch, in order of execution;
    `rate_over_time` maps the progress of training in [0, 1] to a factor in [0, 1].
    """

    names: tuple[str, ...]
    drop_rates: tuple[float, ...]
    schedule: Schedule = (1, 1)
    granularity: Granularity = "batch"
    rate_over_time: Callable[[float], float] | None = None
    total_iterations: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """One iteration: its kind, and which branches are dropped.

    In a `drop_path` iteration the `dropped` branches do not run; in a `dropped_part` iteration
    everything runs and only they learn. With `granularity="sample"` each row has a draw of its own
    (`mask`): `dropped` then names the branches that some row may drop, `kept` those that none does.

    `drop_rates` are the rates the draw was made with: effective ones where a `dropped_part`
    iteration trains what is drawn. `decided_at` is the iteration that made the draw. `is_dropped`: by branch, in
    order of execution, whether it is one of `dropped`.
    """

    iteration: int
    kind: Kind
    dropped: tuple[str, ...]
    kept: tuple[str, ...]
    drop_rates: tuple[float, ...]
    decided_at: int
    nominal_rates: tuple[float, ...]
    nonempty: bool
    seed: int
    is_dropped: tuple[bool, ...]

    def mask(self, rows: int) -> Tensor:
        """Which rows drop which branches, bool[branches, rows], of `rows` rows over all ranks."""
        dropped = draw_dropped(
            self.nominal_rates, seed=self.seed, iteration=self.decided_at, rows=rows, nonempty=self.nonempty
        )
        return dropped.T.contiguous()


def rates_over_depth(block_of_branch: Sequence[int], drop_path_rate: float, shape: RateOverDepth) -> tuple[float, ...]:
    """Nominal rate of each branch, given the index of its block in order of execution.

    `linear` is timm's rule, linspace(0, rate) over the blocks; the branches of one block share a
    rate, and one block alone gets `drop_path_rate` (Huang et al. 2016, section 3.3, up to the end points).
    """
    last = max(block_of_branch)
    if shape == "uniform" or last == 0:
        return tuple(drop_path_rate for _ in block_of_branch)
    return tuple(drop_path_rate * block / last for block in block_of_branch)


def scheduled_kind(options: PlanOptions, iteration: int) -> Kind:
    """The kind by the schedule alone, before asking whether there is anything to drop."""
    if options.schedule == "random":
        coin = uniform_row(options.seed, iteration, "kind", 1)[0]
        return "drop_path" if iteration == 0 or coin < 0.5 else "dropped_part"
    num_drop_path, num_dropped_part = options.schedule
    return "drop_path" if iteration % (num_drop_path + num_dropped_part) < num_drop_path else "dropped_part"


def deciding_iteration(options: PlanOptions, iteration: int) -> int:
    """The last `drop_path` iteration up to `iteration`: the one whose draw is in force."""
    while scheduled_kind(options, iteration) == "dropped_part":
        iteration -= 1
    return iteration


def rates_at(options: PlanOptions, iteration: int) -> tuple[float, ...]:
    """Nominal rates at an iteration, the factor of `rate_over_time` applied."""
    if options.rate_over_time is None or options.total_iterations is None:
        return options.drop_rates
    factor = options.rate_over_time(min(1.0, iteration / options.total_iterations))
    if not 0.0 <= factor <= 1.0:
        raise ValueError(
            f"`rate_over_time` must return a factor in [0, 1], got {factor!r} at iteration {iteration}; "
            "scale it, and set `drop_path_rate` to the largest rate wanted."
        )
    return tuple(rate * factor for rate in options.drop_rates)


def make_plan(options: PlanOptions, iteration: int) -> Plan:
    """The plan of `iteration`. Equal arguments give equal plans, on every rank and after resuming."""
    kind = scheduled_kind(options, iteration)
    decided_at = deciding_iteration(options, iteration)
    nominal = rates_at(options, decided_at)
    if not any(nominal):  # nothing to drop: a plain iteration, whatever the schedule says
        kind, decided_at = "drop_path", iteration
        nominal = tuple(0.0 for _ in nominal)

    # A draw that no `dropped_part` iteration will train may be empty.
    nonempty = any(nominal) and scheduled_kind(options, decided_at + 1) == "dropped_part"
    dropped, kept, rates, is_dropped = _drawn(
        options.names, nominal, options.granularity, options.seed, decided_at, nonempty
    )
    return Plan(
        iteration=iteration,
        kind=kind,
        dropped=dropped,
        kept=kept,
        drop_rates=rates,
        decided_at=decided_at,
        nominal_rates=nominal,
        nonempty=nonempty,
        seed=options.seed,
        is_dropped=is_dropped,
    )


@functools.lru_cache(maxsize=64)  # the iterations of a cycle share a draw
def _drawn(
    names: tuple[str, ...],
    nominal: tuple[float, ...],
    granularity: Granularity,
    seed: int,
    decided_at: int,
    nonempty: bool,
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[float, ...], tuple[bool, ...]]:
    """Names of the branches dropped, of those kept, the rates that the draw was made with, and by branch the draw."""
    if granularity == "batch":
        drawn = draw_row(nominal, seed=seed, iteration=decided_at, nonempty=nonempty)
    else:
        drawn = [rate > 0 for rate in nominal]
    return (
        tuple(compress(names, drawn)),
        tuple(compress(names, map(operator.not_, drawn))),
        effective_rates(nominal) if nonempty else nominal,
        tuple(drawn),
    )
