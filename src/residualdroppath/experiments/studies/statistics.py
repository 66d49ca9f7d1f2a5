"""Over seeds: summaries, paired comparisons, and Holm's correction."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from ...records.intervals import interval, paired_difference

Row = dict[str, Any]


def summary(values: Sequence[float]) -> Row:
    """Mean, sample standard deviation, n, and the ends of the 95 % interval by Student's t; None where n is too few."""
    if not values:
        return {"mean": None, "std": None, "n": 0, "low": None, "high": None}
    found = interval(values)
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": found["mean"], "std": deviation, "n": len(values), "low": found["low"], "high": found["high"]}


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Row:
    """Differences over the seeds that both have: `summary`, and the p value of the two-sided paired t test."""
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return {**summary([]), "p": None}
    values = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
    differences = paired_difference(*values)["values"]
    return {**summary(differences), "p": p_value(differences)}


def p_value(differences: Sequence[float]) -> float | None:
    """Of the mean against 0, two-sided, by Student's t; None for fewer than two."""
    count = len(differences)
    if count < 2:
        return None
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / (deviation / math.sqrt(count)), count - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values (Holm 1979): the k-th smallest of m times m - k + 1, never below a smaller one's, at most 1."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
