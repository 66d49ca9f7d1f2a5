"""Balanced draws: how many are dropped, how often each is, and at exactly which rates; any rates that may occur."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from residualdroppath.core.planning import balanced
from residualdroppath.core.planning.balanced import DECK, balanced_effective_rates, deck, strata
from residualdroppath.core.planning.plan import PlanOptions, make_plan

TWENTIETHS = st.integers(0, 20).map(lambda part: part / 20)
RATES = st.lists(st.one_of(TWENTIETHS, st.floats(0.0, 1.0)), min_size=1, max_size=24).map(tuple)
SEEDS = st.integers(0, 2**32)
UNIFORM = PlanOptions(names=tuple("abcdefghij"), drop_rates=(0.5,) * 10, draw="balanced", schedule=(1, 0))
LINEAR = replace(UNIFORM, drop_rates=tuple(index / 18 for index in range(10)))


def rounded(total: float) -> tuple[int, int]:
    """Down and up; sums of floats that are whole but for rounding are whole."""
    return math.floor(total + 1e-9), math.ceil(total - 1e-9)


def strata_of_deck(rates: tuple[float, ...], seed: int, number: int) -> list[list[int]]:
    """Where this deck cuts: by the second of its random numbers."""
    in_play = [index for index, rate in enumerate(rates) if rate > 0]
    shift = balanced.uniform_row(seed, number, "test", 2)[1]
    return [[in_play[place] for place in run] for run in strata([rates[index] for index in in_play], 1 - shift)]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(RATES, SEEDS, st.integers(0, 10**6))
def test_counts_are_sums_of_rates_rounded_down_or_up(rates: tuple[float, ...], seed: int, number: int) -> None:
    """Of all branches, of each stratum, and of each branch over the deck."""
    draws = deck(rates, seed, number, "test")
    assert len(draws) == DECK and all(len(draw) == len(rates) for draw in draws)
    for run in [range(len(rates)), *strata_of_deck(rates, seed, number)]:
        low, high = rounded(math.fsum(rates[index] for index in run))
        assert all(low <= sum(draw[index] for index in run) <= high for draw in draws)
    for index, rate in enumerate(rates):
        low, high = rounded(rate * DECK)
        assert low <= sum(draw[index] for draw in draws) <= high


@settings(max_examples=100, deadline=None, derandomize=True)
@given(RATES, st.floats(0.001, 1.0))
def test_strata_are_neighbours_of_which_about_one_is_dropped_or_kept(rates: tuple[float, ...], first: float) -> None:
    runs = strata(rates, first)
    assert [index for run in runs for index in run] == list(range(len(rates))) and all(runs)
    for run in runs[1:-1]:  # the first and the last may be cut short, and so the second may begin late
        assert 0.25 - 1e-9 <= math.fsum(min(rates[index], 1 - rates[index]) for index in run) <= 1.5 + 1e-9


def test_strata_of_equal_rates() -> None:
    assert list(map(len, strata((0.5,) * 8))) == [2] * 4
    assert list(map(len, strata((0.1,) * 25))) == [10, 10, 5]
    assert list(map(len, strata((0.8,) * 10))) == [5, 5]
    assert list(map(len, strata((0.5,) * 6, 0.5))) == [1, 2, 2, 1]
    assert strata(()) == []


@pytest.mark.parametrize("rates", [(0.3,) * 7, (0.0, 0.07, 0.61, 0.33, 0.999), (0.02, 0.03)], ids=str)
def test_every_rate_is_exact_for_every_draw(rates: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The expected number of drops in a deck, over the one random number that decides it, summed over its steps."""
    expected = [Fraction(0)] * len(rates)
    numbers = balanced.uniform_row(1, 2, "test", 2 + len(rates) + DECK * (1 + len(rates)))
    steps = 2000  # the offset's, midpoints
    for step in range(steps):
        offset = (step + 0.5) / steps
        monkeypatch.setattr(balanced, "uniform_row", lambda *_, offset=offset: [offset, *numbers[1:]])
        drawn = deck.__wrapped__(rates, 1, 2, "test")
        for index in range(len(rates)):
            expected[index] += sum(draw[index] for draw in drawn)
    for index, rate in enumerate(rates):
        assert float(expected[index] / steps) == pytest.approx(rate * DECK, abs=2 / steps)


def test_no_draw_of_a_deck_is_special() -> None:
    """Each branch is dropped at its rate in the first draw of a deck, in the middle, and in the last."""
    rates, num = (0.3, 0.5, 0.2, 0.5, 0.7, 0.05), 4000
    decks = torch.tensor([deck(rates, seed, 0, "test") for seed in range(num)]).double()
    for place in (0, 7, DECK - 1):
        for index, rate in enumerate(rates):
            found = decks[:, place, index].mean().item()
            assert abs(found - rate) < 4 * math.sqrt(rate * (1 - rate) / num), (place, index)


def test_neighbours_run_together_and_are_dropped_together_now_and_then() -> None:
    """Were strata cut at the same places in every deck, exactly one of the first two would run."""
    plans = [make_plan(UNIFORM, iteration).is_dropped for iteration in range(400)]
    for first, second in zip(range(9), range(1, 10), strict=True):
        together = [plan[first] for plan in plans if plan[first] == plan[second]]
        assert any(together) and not all(together)
    assert len(set(plans)) > 50  # of 2 * 2**5


@pytest.mark.parametrize(
    "options", [UNIFORM, LINEAR, replace(UNIFORM, schedule=(3, 2))], ids=["uniform", "linear", "3,2"]
)
def test_draws_go_through_deck_after_deck(options: PlanOptions) -> None:
    plans = [make_plan(options, iteration) for iteration in range(400)]
    drawn = [plan for plan in plans if plan.kind == "drop_path"]
    for start in range(0, len(drawn) - DECK, DECK):
        counts = [sum(column) for column in zip(*(p.is_dropped for p in drawn[start : start + DECK]), strict=True)]
        assert all(abs(count - DECK * rate) < 1 for count, rate in zip(counts, options.drop_rates, strict=True))
    assert {sum(plan.is_dropped) for plan in drawn} <= set(rounded(sum(options.drop_rates)))
    assert all(plan.drop_rates == options.drop_rates for plan in plans)  # nothing is ever drawn again
    assert plans[::-1] == [make_plan(options, iteration) for iteration in reversed(range(400))]
    assert plans != [make_plan(replace(options, seed=1), iteration) for iteration in range(400)]


def test_rates_below_one_in_all_are_scaled_up_where_a_draw_may_not_be_empty() -> None:
    rates = (0.0, 0.1, 0.3)
    assert balanced_effective_rates(rates) == pytest.approx((0.0, 0.25, 0.75))
    assert balanced_effective_rates((0.5, 0.6)) == (0.5, 0.6)
    assert balanced_effective_rates((0.0, 0.0)) == (0.0, 0.0)
    options = PlanOptions(names=tuple("abc"), drop_rates=rates, draw="balanced")
    plans = [make_plan(options, iteration) for iteration in range(2 * 10 * DECK)]
    assert all(len(plan.dropped) == 1 for plan in plans)
    assert sum(plan.dropped == ("c",) for plan in plans) == 0.75 * len(plans)
    alone = [make_plan(replace(options, schedule=(1, 0)), iteration) for iteration in range(10 * DECK)]
    assert 0 < sum(not plan.dropped for plan in alone) and all(plan.drop_rates == rates for plan in alone)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([1e-9, 1e-3, 0.05, 0.1, 0.2, 0.3, 1 / 3, 0.7]), min_size=1, max_size=12), SEEDS)
def test_draws_to_be_trained_are_never_empty(rates: Sequence[float], seed: int) -> None:
    effective = balanced_effective_rates(tuple(rates))
    assert all(any(draw) for number in range(5) for draw in deck(effective, seed, number, "test"))


@pytest.mark.parametrize("num", [3, 6, 10, 11, 23])
def test_rates_that_add_up_to_one_but_for_rounding_drop_something(num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the offset where a sum just below a whole number would lack a drop."""
    rates = balanced_effective_rates(tuple(0.001 * (index + 1) for index in range(num)))
    numbers = balanced.uniform_row(1, 2, "test", 2 + num + DECK * (1 + num))
    monkeypatch.setattr(balanced, "uniform_row", lambda *_: [0.0, *numbers[1:]])
    for own in (rates, (1 / num,) * num, (0.1,) * 10):
        assert all(any(draw) for draw in deck.__wrapped__(own, 1, 2, "test"))


def test_rates_over_time_hold_for_each_draw() -> None:
    options = replace(UNIFORM, rate_over_time=lambda progress: 1 - progress, total_iterations=100)
    plans = [make_plan(options, iteration) for iteration in range(100)]
    for plan in plans:
        assert sum(plan.is_dropped) in rounded(sum(plan.drop_rates))
        assert plan.drop_rates == pytest.approx([0.5 * (1 - plan.iteration / 100)] * 10)


def test_rows_of_a_batch_are_the_draws_of_decks() -> None:
    options = replace(LINEAR, granularity="sample", schedule=(1, 1))
    for iteration in range(4):
        plan = make_plan(options, iteration)
        mask = plan.mask(50)
        assert mask.shape == (10, 50) and mask.dtype == torch.bool
        assert not torch.equal(mask[:, :DECK], mask[:, DECK : 2 * DECK])
        assert torch.equal(plan.mask(23), mask[:, :23]) and plan.mask(0).shape == (10, 0)
        for start in (0, DECK):
            counts = mask[:, start : start + DECK].sum(dim=1).tolist()
            assert all(abs(count - DECK * rate) < 1 for count, rate in zip(counts, LINEAR.drop_rates, strict=True))
        assert set(mask.sum(dim=0).tolist()) <= set(rounded(sum(LINEAR.drop_rates)))
    assert not torch.equal(make_plan(options, 0).mask(50), make_plan(options, 2).mask(50))
    assert torch.equal(make_plan(options, 0).mask(50), make_plan(options, 1).mask(50))


def test_balanced_plans_are_the_same_across_releases_and_platforms() -> None:
    """What an experiment has drawn it draws again: change these only together with a note of changes."""
    found = ["".join(make_plan(LINEAR, iteration).dropped) for iteration in range(4)]
    assert found == ["di", "gh", "gi", "bgj"]
