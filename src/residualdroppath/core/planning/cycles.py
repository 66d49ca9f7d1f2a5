"""Cycles: some `drop_path` iterations, then the `dropped_part` iterations that train what they dropped.

With `empty_draw="plain"` a cycle ends early where it dropped nothing, so where later ones begin depends on all draws
before. It is found by going through the cycles one by one, from the first or from any one that is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .draw import Draw
from .draws import uniform_row
from .plan_options import PlanOptions, rates_at

Kind = Literal["drop_path", "dropped_part"]


@dataclass(frozen=True)
class Beginning:
    """Where a cycle begins: at which iteration, and after how many draws. All that is to be known of those before."""

    iteration: int = 0
    num_draws: int = 0

    @staticmethod
    def from_state(state: Any, iteration: int) -> Beginning:
        """From `dataclasses.asdict`, of the cycle that holds `iteration`; None: the first. Raises `ValueError`."""
        if state is None:
            return FIRST
        known: dict[str, Any] = state if isinstance(state, dict) else {}
        start, num_draws = known.get("iteration"), known.get("num_draws")
        if type(start) is not int or type(num_draws) is not int or not 0 <= num_draws <= start <= iteration:
            raise ValueError(
                "`state['cycle']` must be {'iteration': .., 'num_draws': ..} with 0 <= num_draws <= iteration <= "
                f"{iteration}, the iteration of the state, got {state!r}; load a state as `state_dict()` gave it."
            )
        return Beginning(start, num_draws)


FIRST = Beginning()


@dataclass(frozen=True)
class Cycle:
    """`num_drop_path` iterations, then `num_dropped_part`.

    `is_empty`: the draws dropped nothing, so the last `drop_path` iteration is a plain one and ends the cycle.
    """

    begins: Beginning
    num_drop_path: int
    num_dropped_part: int
    is_empty: bool = False

    @property
    def deciding(self) -> int:
        """The last `drop_path` iteration."""
        return self.begins.iteration + self.num_drop_path - 1

    @property
    def following(self) -> Beginning:
        return Beginning(
            self.deciding + 1 + self.num_dropped_part,
            self.begins.num_draws + self.num_drop_path,
        )


def cycle_at(options: PlanOptions, iteration: int, known: Beginning = FIRST) -> Cycle:
    """The cycle that holds `iteration`; `known` is where some cycle begins, and changes no more than the time taken."""
    if options.schedule != "random" and options.empty_draw == "redraw":
        num_drop_path, num_dropped_part = options.schedule
        number = iteration // (num_drop_path + num_dropped_part)
        known = Beginning(number * (num_drop_path + num_dropped_part), number * num_drop_path)
    cycle = _cycle_from(options, known if known.iteration <= iteration else FIRST)
    while cycle.following.iteration <= iteration:
        cycle = _cycle_from(options, cycle.following)
    return cycle


def draw_at(options: PlanOptions, cycle: Cycle, iteration: int) -> Draw:
    """The draw of a `drop_path` iteration of a cycle. One that will be trained may not be empty, if it is redrawn."""
    nominal = rates_at(options, iteration)
    decides = iteration == cycle.deciding and cycle.num_dropped_part > 0
    return Draw(
        seed=options.seed,
        iteration=iteration,
        number=cycle.begins.num_draws + iteration - cycle.begins.iteration,
        nominal_rates=nominal,
        nonempty=any(nominal) and decides and options.empty_draw == "redraw",
        form=options.draw,
    )


def draws_of(options: PlanOptions, cycle: Cycle) -> tuple[Draw, ...]:
    """The draws of a cycle, whose last decides."""
    return tuple([draw_at(options, cycle, each) for each in range(cycle.begins.iteration, cycle.deciding + 1)])


def dropped_by_any(draws: Sequence[Draw]) -> tuple[bool, ...]:
    """By branch, whether some of the draws drops it for the whole batch."""
    return tuple(map(any, zip(*(draw.batch() for draw in draws), strict=True)))


def _cycle_from(options: PlanOptions, begins: Beginning) -> Cycle:
    cycle = Cycle(begins, *_lengths(options, begins.iteration))
    if options.empty_draw == "plain" and cycle.num_dropped_part > 0 and not _drops_something(options, cycle):
        return Cycle(begins, cycle.num_drop_path, 0, is_empty=True)
    return cycle


def _lengths(options: PlanOptions, start: int) -> tuple[int, int]:
    """How many `drop_path` and `dropped_part` iterations a cycle has; each cycle of a random schedule, its own."""
    if options.schedule != "random":
        return options.schedule
    middle = start + 1  # whatever the coin of the first iteration is
    while _coin(options.seed, middle) == "drop_path":
        middle += 1
    end = middle + 1
    while _coin(options.seed, end) == "dropped_part":
        end += 1
    return middle - start, end - middle


def _coin(seed: int, iteration: int) -> Kind:
    return "drop_path" if uniform_row(seed, iteration, "kind", 1)[0] < 0.5 else "dropped_part"


def _drops_something(options: PlanOptions, cycle: Cycle) -> bool:
    """Whether the cycle has something to train."""
    draws = draws_of(options, cycle)
    counted = draws if options.trains == "union" else draws[-1:]
    return any(draws[-1].nominal_rates) and any(dropped_by_any(counted))
