"""Means, deviations, ratios and their intervals."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from residualdroppath.records.intervals import (
    half_width,
    interval,
    mean_and_deviation,
    paired_difference,
    ratio_of_means,
)


def test_mean_and_deviation() -> None:
    values = [0.91, 0.95, 0.93, 0.99]
    mean = sum(values) / 4
    deviation = (sum((value - mean) ** 2 for value in values) / 3) ** 0.5
    found = mean_and_deviation(values)
    assert found["mean"] == pytest.approx(mean) and found["std"] == pytest.approx(deviation)
    assert found["std"] != pytest.approx(statistics.pstdev(values)) and found["values"] == values
    assert mean_and_deviation([0.5]) == {"mean": 0.5, "std": None, "values": [0.5]}


def test_interval_is_students() -> None:
    values = [0.3, 0.5, 0.9, 0.4]
    found = interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found["mean"] == pytest.approx(np.mean(values)) and found["values"] == values
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert interval([2.0]) == {"mean": 2.0, "low": None, "high": None, "values": [2.0]}


def test_half_width_of_each_column() -> None:
    rows = np.array([[0.3, 5.0], [0.5, 5.5], [0.9, 4.0]])
    for column, half in zip(rows.T, half_width(rows), strict=True):
        found = interval(column.tolist())
        assert found["high"] - found["mean"] == pytest.approx(half)


def test_difference_within_pairs() -> None:
    ours, theirs = [3.0, 14.0, 25.0], [5.0, 15.0, 28.0]
    found = paired_difference(ours, theirs)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found["values"] == [-2.0, -1.0, -3.0]
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    with pytest.raises(ValueError, match="shorter"):
        paired_difference(ours, theirs[:2])


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
