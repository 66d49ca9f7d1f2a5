"""Sums of parts, against sums written by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from residualdroppath.core.planning.draw import Draw
from residualdroppath.core.planning.plan import Plan
from residualdroppath.experiments.bench.lower_bound import LowerBound

NAMES = ("a", "b", "c")
# Powers of ten tell which parts were summed: a branch counts at 1, 10, 100 (times its mode's digit), trunk above.
DIGIT = {"trained": 4.0, "first": 3.0, "frozen": 2.0, "no_graph": 1.0}
TRUNK = {None: 9000.0, 0: 8000.0, 1: 7000.0, 2: 6000.0}


def floor(batch: tuple[bool, ...] = (False, False, False)) -> LowerBound:
    return LowerBound(
        names=NAMES,
        has_batch_statistics=batch,
        branches={(i, mode): [10.0**i * digit] * 2 for i in range(3) for mode, digit in DIGIT.items()},  # type: ignore
        dropped_adds={i: [0.0] for i in range(3)},
        trunk={first: [seconds] for first, seconds in TRUNK.items()},
        updates={None: [50_000.0], 0: [20_000.0], 1: [20_000.0], 2: [20_000.0]},
        idle_update=[10_000.0],
    )


def plan(kind: str, *dropped: str) -> Plan:
    kept = tuple(name for name in NAMES if name not in dropped)
    return Plan(0, kind, dropped, kept, (0.5,) * 3, 0, (), (Draw(0, 0, 0, (0.5,) * 3, True),))  # type: ignore[arg-type]


def test_plain_runs_and_trains_everything() -> None:
    updates = 10_000 + 40_000 + 3 * 10_000
    assert floor().of_plain() == 9000 + 444 + updates


def test_drop_path_runs_and_trains_what_is_kept() -> None:
    assert floor().of_plan(plan("drop_path", "b"), "parameters") == 9000 + 404 + 10_000 + 40_000 + 2 * 10_000
    assert floor().of_plan(plan("drop_path", *NAMES), "parameters") == 9000 + 10_000 + 40_000


@pytest.mark.parametrize(("freeze", "passed"), [("parameters", 200), ("stop_gradient", 100)])
def test_dropped_part_keeps_no_graph_below_the_first(freeze: str, passed: int) -> None:
    assert floor().of_plan(plan("dropped_part", "b"), freeze) == 7000 + 1 + 30 + passed + 10_000 + 10_000


def test_dropped_part_trains_all_that_was_dropped() -> None:
    """The first needs no gradient to its input, the others do."""
    assert floor().of_plan(plan("dropped_part", "a", "c"), "parameters") == 8000 + 3 + 20 + 400 + 10_000 + 20_000


def test_dropped_adds_is_taken_from_the_trunk_once() -> None:
    """The trunk is timed with all branches away, where every add hands its shortcut on."""
    own = floor()
    own.dropped_adds = {i: [100.0, 300.0] for i in range(3)}
    assert own.of_plain() == floor().of_plain() - 3 * 200


def by_row(kind: str, rates: tuple[float, ...]) -> tuple[Plan, list[float]]:
    own = dataclasses.replace(plan(kind), draws=(Draw(3, 0, 0, rates, True),))
    return own, own.mask(8).double().mean(dim=1).tolist()


def test_rows_are_paid_for_by_their_share() -> None:
    own, shares = by_row("drop_path", (0.5, 0.5, 0.5))
    assert all(0 < share < 1 for share in shares)
    branches = sum((1 - share) * 4 * 10**i for i, share in enumerate(shares))
    assert floor().of_plan(own, "stop_gradient", 8) == pytest.approx(9000 + branches + 80_000)


def test_rows_of_a_dropped_part() -> None:
    own, shares = by_row("dropped_part", (0.5, 0.5, 0.5))
    modes = zip(shares, (3, 4, 4), strict=True)
    branches = sum((share * mode + (1 - share)) * 10**i for i, (share, mode) in enumerate(modes))
    assert floor().of_plan(own, "stop_gradient", 8) == pytest.approx(8000 + branches + 40_000)


def test_batch_statistics_need_all_rows() -> None:
    own, shares = by_row("drop_path", (0.5, 0.5, 0.5))
    assert torch.tensor(shares).max() < 1
    assert floor((True, True, True)).of_plan(own, "stop_gradient", 8) == 9000 + 444 + 80_000
