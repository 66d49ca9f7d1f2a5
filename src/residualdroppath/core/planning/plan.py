"""What one iteration does: a pure function from (options, iteration) to a `Plan`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

import torch
from torch import Tensor

from ..options import RateOverDepth
from .cycles import FIRST, Beginning, Cycle, Kind, cycle_at, draw_at, draws_of, dropped_by_any
from .draw import Draw
from .plan_options import PlanOptions


@dataclass(frozen=True)
class Plan:
    """One iteration: its kind, and which branches are dropped.

    In a `drop_path` iteration the `dropped` branches do not run; in a `dropped_part` iteration
    everything runs and only they learn. With `granularity="sample"` each row has a draw of its own
    (`mask`): `dropped` then names the branches that some row may drop, `kept` those that none does.

    `drop_rates` are the rates the draw was made with: effective ones where a `dropped_part`
    iteration trains what is drawn. `decided_at` is the iteration that made the draw. `is_dropped`: by branch, in
    order of execution, whether it is one of `dropped`. `draws`: those that `dropped` is the union of, rows too;
    none: all branches.
    """

    iteration: int
    kind: Kind
    dropped: tuple[str, ...]
    kept: tuple[str, ...]
    drop_rates: tuple[float, ...]
    decided_at: int
    is_dropped: tuple[bool, ...]
    draws: tuple[Draw, ...]

    @property
    def nonempty(self) -> bool:
        """Whether the draw was made such that it drops something."""
        return any(draw.nonempty for draw in self.draws)

    def mask(self, rows: int) -> Tensor:
        """Which rows drop which branches, bool[branches, rows], of `rows` rows over all ranks."""
        if not self.draws:
            return torch.ones(len(self.is_dropped), rows, dtype=torch.bool)
        return functools.reduce(torch.logical_or, [draw.rows(rows) for draw in self.draws]).T.contiguous()


def rates_over_depth(block_of_branch: Sequence[int], drop_path_rate: float, shape: RateOverDepth) -> tuple[float, ...]:
    """Nominal rate of each branch, given the index of its block in order of execution.

    `linear` is timm's rule, linspace(0, rate) over the blocks; the branches of one block share a
    rate, and one block alone gets `drop_path_rate` (Huang et al. 2016, section 3.3, up to the end points).
    """
    last = max(block_of_branch)
    if shape == "uniform" or last == 0:
        return tuple(drop_path_rate for _ in block_of_branch)
    return tuple(drop_path_rate * block / last for block in block_of_branch)


def make_plan(options: PlanOptions, iteration: int, known: Beginning = FIRST) -> Plan:
    """The plan of `iteration`. Equal arguments give equal plans, on every rank and after resuming.

    `known`, where some cycle begins, spares going through all cycles before it.
    """
    cycle = cycle_at(options, iteration, known)
    decided_at = min(iteration, cycle.deciding)
    decides = draw_at(options, cycle, decided_at)
    kind: Kind = "drop_path" if iteration <= cycle.deciding else "dropped_part"
    draws = (decides,) if kind == "drop_path" else _trained(options, cycle, decides)
    if not any(decides.nominal_rates) or (cycle.is_empty and decided_at == cycle.deciding):
        # Nothing to drop, or nothing dropped: a plain iteration, whatever the schedule says.
        kind, decided_at = "drop_path", iteration
        decides = replace(decides, nominal_rates=tuple(0.0 for _ in options.names), nonempty=False)
        draws = (decides,)
    is_dropped = _dropped(options, draws)
    return Plan(
        iteration=iteration,
        kind=kind,
        dropped=tuple(compress(options.names, is_dropped)),
        kept=tuple(compress(options.names, map(operator.not_, is_dropped))),
        drop_rates=decides.rates,
        decided_at=decided_at,
        is_dropped=is_dropped,
        draws=draws,
    )


def _trained(options: PlanOptions, cycle: Cycle, decides: Draw) -> tuple[Draw, ...]:
    """What the `dropped_part` iterations of a cycle train, as draws: the union of them; none: everything.

    Which draws are made does not depend on it, while none ends a cycle early: so these can be compared in pairs.
    """
    if options.trains == "all":
        return ()
    if options.trains == "union":
        return draws_of(options, cycle)
    if options.trains == "unrelated":
        return (replace(decides, nonempty=True, stream="unrelated"),)
    return (decides,)


def _dropped(options: PlanOptions, draws: tuple[Draw, ...]) -> tuple[bool, ...]:
    if not draws:
        return tuple(True for _ in options.names)
    if options.granularity == "batch":
        return dropped_by_any(draws)
    return tuple(any(rates) for rates in zip(*(draw.nominal_rates for draw in draws), strict=True))
