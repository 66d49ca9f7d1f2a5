"""What plans depend on: the options that concern them, and the rates of branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..options import DrawForm, EmptyDraw, Granularity, Schedule, Trains


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
    trains: Trains = "last"
    draw: DrawForm = "independent"
    empty_draw: EmptyDraw = "redraw"


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
