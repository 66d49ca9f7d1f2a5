"""Over seeds: summaries, paired comparisons, Holm's correction, slopes over what was varied, and rank correlation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
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


def slopes(differences: Mapping[int, Sequence[tuple[Row, float]]]) -> list[Row]:
    """For each option that is varied: how much the difference changes when its value doubles, over seeds.

    `differences` holds (point, difference) of each seed. One least-squares fit a seed, difference = a + sum of
    b log2(option), over the options whose values are numbers above 0 and differ; then `summary` of each b and its p
    value. Seeds with fewer points than coefficients, or points that do not vary apart, are left out.
    """
    points = [point for own in differences.values() for point, _ in own]
    names = [
        name
        for name in dict.fromkeys(name for point in points for name in point)
        if all(_positive(point.get(name)) for point in points) and len({point[name] for point in points}) > 1
    ]
    fitted: list[list[float]] = []
    for own in differences.values():
        design = np.array([[1.0, *(math.log2(point[name]) for name in names)] for point, _ in own])
        if names and np.linalg.matrix_rank(design) == len(names) + 1:
            fitted.append(np.linalg.lstsq(design, np.array([each for _, each in own]), rcond=None)[0].tolist())
    if not fitted:
        return []
    by_option = {name: [own[place] for own in fitted] for place, name in enumerate(names, start=1)}
    return [{"option": name, **summary(values), "p": p_value(values)} for name, values in by_option.items()]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> Row:
    """Spearman's rho with its two-sided p value; None for fewer than four pairs, or where one side is constant."""
    if len(first) < 4 or len(set(first)) < 2 or len(set(second)) < 2:
        return {"rho": None, "p": None, "n": len(first)}
    found: Any = stats.spearmanr(first, second)
    return {"rho": float(found.statistic), "p": float(found.pvalue), "n": len(first)}


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
