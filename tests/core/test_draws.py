"""The draws: exact extremes, frequencies, and rows that do not depend on how many there are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from residualdroppath.core.planning.draws import draw_dropped, effective_rates, uniform
from residualdroppath.core.planning.plan import PlanOptions, make_plan

RATES = (0.0, 0.05, 0.1, 0.3)


def draws(rates: tuple[float, ...], num: int, *, nonempty: bool, seed: int = 1) -> Tensor:
    """One draw for each of `num` iterations, bool[num, branches]."""
    return torch.cat([draw_dropped(rates, seed=seed, iteration=i, nonempty=nonempty) for i in range(num)])


def check_frequencies(found: Tensor, expected: tuple[float, ...]) -> None:
    """Each within four standard deviations of a binomial distribution."""
    num = len(found)
    for frequency, rate in zip(found.double().mean(dim=0).tolist(), expected, strict=True):
        assert abs(frequency - rate) <= 4 * math.sqrt(rate * (1 - rate) / num), (frequency, rate)


def test_extremes_are_exact() -> None:
    found = draws((0.0, 1.0, 0.0, 1.0), 50, nonempty=False)
    assert found.tolist() == [[False, True, False, True]] * 50
    assert not draws((0.0, 0.0), 20, nonempty=True).any()
    assert draw_dropped((), seed=0, iteration=0).shape == (1, 0)


def test_frequencies_over_iterations() -> None:
    check_frequencies(draws(RATES, 3000, nonempty=False), RATES)
    deciding = draws(RATES, 3000, nonempty=True)
    check_frequencies(deciding, effective_rates(RATES))
    assert deciding.any(dim=1).all()


def test_frequencies_over_rows() -> None:
    check_frequencies(draw_dropped(RATES, seed=2, iteration=3, rows=5000), RATES)
    check_frequencies(draw_dropped(RATES, seed=2, iteration=3, rows=5000, nonempty=True), effective_rates(RATES))


@pytest.mark.parametrize("nonempty", [False, True])
def test_branches_are_independent_but_for_the_condition(nonempty: bool) -> None:
    """All eight outcomes of three branches against their exact probabilities."""
    rates = (0.2, 0.5, 0.3)
    found = draw_dropped(rates, seed=4, iteration=0, rows=8000, nonempty=nonempty)
    outcomes = (found * torch.tensor([1, 2, 4])).sum(dim=1)
    for outcome in range(8):
        probability = math.prod(rate if outcome >> i & 1 else 1 - rate for i, rate in enumerate(rates))
        if nonempty:
            probability = 0.0 if outcome == 0 else probability / (1 - 0.8 * 0.5 * 0.7)
        frequency = (outcomes == outcome).double().mean().item()
        assert abs(frequency - probability) <= 4 * math.sqrt(probability * (1 - probability) / 8000), outcome


def test_effective_rates() -> None:
    none_dropped = 0.95 * 0.9 * 0.7
    assert effective_rates(RATES) == pytest.approx([rate / (1 - none_dropped) for rate in RATES], abs=1e-14)
    assert effective_rates((0.3,)) == pytest.approx((1.0,), abs=1e-12)
    assert effective_rates((0.0, 0.0)) == (0.0, 0.0)
    assert all(rate <= 1 for rate in effective_rates((0.1, 0.0)))


@pytest.mark.parametrize("rate", [1e-3, 1e-9, 1e-17, 1e-300])
def test_deciding_draws_are_never_empty(rate: float) -> None:
    rates = (0.0, rate, rate)
    found = draws(rates, 200, nonempty=True)
    assert found.any(dim=1).all() and not found[:, 0].any()
    assert effective_rates(rates) == pytest.approx((0.0, 0.5, 0.5), rel=2 * rate + 1e-12)
    assert 60 < found[:, 1].sum() < 140
    rows = draw_dropped(rates, seed=0, iteration=0, rows=100, nonempty=True)
    assert rows.any(dim=1).all()


def test_what_is_redrawn_is_only_what_was_empty() -> None:
    first, deciding = draws(RATES, 500, nonempty=False), draws(RATES, 500, nonempty=True)
    empty = ~first.any(dim=1)
    assert 0 < empty.sum() < 500
    assert torch.equal(first[~empty], deciding[~empty])


def test_first_rows_of_a_long_mask_are_the_short_mask() -> None:
    options = PlanOptions(names=tuple("abcd"), drop_rates=RATES, granularity="sample")
    for iteration in range(4):
        plan = make_plan(options, iteration)
        assert plan.mask(9).shape == (4, 9) and plan.mask(9).dtype == torch.bool
        assert torch.equal(plan.mask(5), plan.mask(9)[:, :5])
        assert plan.dropped == ("b", "c", "d") and plan.kept == ("a",)
    assert not torch.equal(make_plan(options, 0).mask(64), make_plan(options, 2).mask(64))
    assert torch.equal(make_plan(options, 0).mask(64), make_plan(options, 1).mask(64))  # one cycle, one draw


def test_uniform_numbers() -> None:
    numbers = uniform(0, 0, "drop", 2000, 3)
    assert numbers.dtype == torch.float64 and 0 <= numbers.min() and numbers.max() < 1
    assert abs(numbers.mean().item() - 0.5) < 4 / math.sqrt(12 * 6000)
    assert numbers.unique().numel() == 6000
    for other in (uniform(1, 0, "drop", 2000, 3), uniform(0, 1, "drop", 2000, 3), uniform(0, 0, "kind", 2000, 3)):
        assert not torch.isin(numbers, other).any()
    assert torch.equal(numbers, uniform(0, 0, "drop", 2000, 3))


def test_draws_leave_the_global_generator_alone() -> None:
    before = torch.random.manual_seed(3).get_state()
    draw_dropped(RATES, seed=0, iteration=0, rows=10, nonempty=True)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_rows_that_are_not_empty_are_not_redrawn() -> None:
    first, deciding = (draw_dropped(RATES, seed=3, iteration=0, rows=500, nonempty=n) for n in (False, True))
    empty = ~first.any(dim=1)
    assert 0 < empty.sum() < 500
    assert torch.equal(first[~empty], deciding[~empty])
