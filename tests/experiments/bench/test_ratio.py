"""The ratio of means and its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from residualdroppath.experiments.bench.measure import ratio_of_means


def test_ratio_of_sums() -> None:
    ratio = ratio_of_means([1.0, 5.0], [2.0, 6.0])
    assert ratio.mean == 6 / 8
    assert ratio.low < ratio.mean < ratio.high


def test_exact_pairs_have_no_interval() -> None:
    ratio = ratio_of_means([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert (ratio.low, ratio.mean, ratio.high) == pytest.approx((0.5, 0.5, 0.5))


def test_one_pair_has_none() -> None:
    assert ratio_of_means([1.0], [2.0]).mean == 0.5 and math.isnan(ratio_of_means([1.0], [2.0]).low)


def test_constant_denominators_give_the_interval_of_a_mean() -> None:
    values = [0.7, 0.9, 0.8, 0.6, 1.0]
    ratio = ratio_of_means(values, [1.0] * 5)
    half = 2.7764451 * np.std(values, ddof=1) / math.sqrt(5)  # t(0.975, 4)
    assert (ratio.low, ratio.high) == pytest.approx((0.8 - half, 0.8 + half))


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        drift = rng.uniform(0.8, 1.5, 40)  # of the machine: both sides of a pair feel it
        ratio = ratio_of_means(list(drift * rng.normal(0.7, 0.1, 40)), list(drift * rng.normal(1.0, 0.05, 40)))
        covered += ratio.low < 0.7 < ratio.high
    assert 0.92 < covered / 500 < 0.98
