"""The time expected: whole cycles, enough of them, and never for ever."""

from __future__ import annotations

from residualdroppath.training.estimate import Estimate


def first_answer(cycle: int, costs: list[float], epoch: int = 10**9) -> tuple[int, float] | None:
    """The iteration after which an estimate is there, and the estimate; iterations cost `costs` in turn."""
    estimate, now = Estimate(cycle), 100.0
    for iteration in range(1, 2000):
        now += 50.0 if iteration == 1 else costs[iteration % len(costs)]  # the first one is slow
        each = estimate.seconds_per_iteration(iteration, now, last=iteration % epoch == 0)
        if each is not None:
            return iteration, round(each, 6)
    return None


def test_both_kinds_of_a_cycle_count_alike() -> None:
    assert first_answer(2, [1.0, 0.5]) == (21, 0.75)
    assert first_answer(5, [1.0, 0.5, 0.5, 0.5, 0.5]) == (21, 0.6)


def test_fast_iterations_are_timed_for_five_seconds_and_slow_ones_for_a_minute() -> None:
    assert first_answer(1, [0.0625]) == (81, 0.0625)
    assert first_answer(1, [31.0]) == (3, 31.0)
    assert first_answer(2, [61.0, 31.0]) == (3, 46.0)


def test_an_epoch_that_ends_before_is_what_there_is() -> None:
    assert first_answer(2, [1.0], epoch=4) == (4, 1.0)


def test_a_pause_is_not_timed() -> None:
    estimate = Estimate(1)
    assert estimate.seconds_per_iteration(1, 0.0, last=True) is None  # an epoch of one iteration
    estimate.restart()
    assert estimate.seconds_per_iteration(2, 500.0) is None
    assert estimate.seconds_per_iteration(3, 502.0, last=True) == 2.0
