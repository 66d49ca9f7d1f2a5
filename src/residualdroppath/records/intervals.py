"""Means over seeds or pairs, and how sure they are: deviations and 95 % intervals by Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Ratio:
    """A ratio of mean times with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def mean_and_deviation(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation (None for a single value)."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": deviation, "values": list(values)}


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % interval; the interval is None for a single value."""
    array = np.asarray(values, dtype=float)
    mean, low, high = float(array.mean()), None, None
    if len(array) > 1:
        half = float(half_width(array))
        low, high = mean - half, mean + half
    return {"mean": mean, "low": low, "high": high, "values": array.tolist()}


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """The `interval` of the differences within pairs, such as runs of one seed."""
    return interval([a - b for a, b in zip(ours, theirs, strict=True)])


def half_width(values: np.ndarray) -> np.ndarray:
    """Half of the 95 % interval of the mean over the first axis, which has two values or more."""
    count = len(values)
    return t_quantile(count) * values.std(0, ddof=1) / count**0.5


def ratio_of_means(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """sum(a) / sum(b) of pairs, its interval by Student's t on the residuals a_i - r b_i.

    The ratio estimator (Cochran, Sampling Techniques, 1977, section 6.3): exact as the number of pairs grows. The
    ends are NaN for a single pair.
    """
    ratio = sum(numerators) / sum(denominators)
    count = len(numerators)
    if count < 2:
        return Ratio(ratio, math.nan, math.nan)
    residuals = [a - ratio * b for a, b in zip(numerators, denominators, strict=True)]
    error = math.sqrt(sum(r * r for r in residuals) / (count - 1) / count) / statistics.fmean(denominators)
    half = t_quantile(count) * error
    return Ratio(ratio, ratio - half, ratio + half)


def t_quantile(count: int) -> float:
    """How many standard errors of a mean over `count` values its 95 % interval reaches to each side."""
    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1))
