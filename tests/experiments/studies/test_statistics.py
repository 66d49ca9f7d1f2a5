"""Summaries, paired comparisons and Holm's correction, against scipy and figures by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from residualdroppath.experiments.studies.statistics import (
    holm,
    p_value,
    paired,
    rank_correlation,
    slopes,
    summary,
)


def test_summary_is_scipys() -> None:
    values = np.random.default_rng(0).normal(0.9, 0.02, 7).tolist()
    found = summary(values)
    low, high = stats.t.interval(0.95, 6, np.mean(values), stats.sem(values))
    assert found["n"] == 7 and found["mean"] == pytest.approx(np.mean(values))
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert found["std"] == pytest.approx(np.std(values, ddof=1))


def test_summary_of_few() -> None:
    assert summary([]) == {"mean": None, "std": None, "n": 0, "low": None, "high": None}
    assert summary([0.5]) == {"mean": 0.5, "std": None, "n": 1, "low": None, "high": None}


@pytest.mark.parametrize("count", [2, 3, 10])
def test_paired_is_scipys(count: int) -> None:
    generator = np.random.default_rng(count)
    ours = dict(enumerate(generator.normal(0.9, 0.02, count)))
    theirs = dict(enumerate(generator.normal(0.88, 0.02, count)))
    expected = stats.ttest_rel(list(ours.values()), list(theirs.values()))
    found = paired(ours, theirs)
    assert found["p"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found["low"], found["high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_pairs_are_by_seed() -> None:
    found = paired({0: 0.5, 1: 0.7, 9: 0.0}, {1: 0.6, 0: 0.3, 5: 1.0})
    assert found["n"] == 2 and found["mean"] == pytest.approx(0.15)
    assert paired({0: 0.5}, {1: 0.5}) == {**summary([]), "p": None}


def test_p_of_differences_without_spread() -> None:
    assert p_value([0.1]) is None and p_value([0.0, 0.0]) == 1.0 and p_value([0.25, 0.25]) == 0.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_holm_rejects_no_less_than_bonferroni_and_no_more_than_nothing() -> None:
    values = np.random.default_rng(1).uniform(0, 0.2, 20)
    adjusted = np.asarray(holm(values.tolist()))
    assert (adjusted <= np.minimum(1, 20 * values) + 1e-12).all() and (adjusted >= values).all()
    assert (np.diff(adjusted[np.argsort(values)]) >= 0).all()


def test_slopes_are_changes_by_doubling() -> None:
    """The differences are made from known slopes, which differ by seed."""
    known = {0: (0.02, -0.01), 1: (0.03, -0.02), 2: (0.01, -0.03)}
    cells = [(images, classes) for images in (25, 50, 200) for classes in (2, 10)]
    differences = {
        seed: [
            ({"images": images, "classes": classes}, 0.5 + first * np.log2(images) + second * np.log2(classes))
            for images, classes in cells
        ]
        for seed, (first, second) in known.items()
    }
    found = slopes(differences)
    assert [each["option"] for each in found] == ["images", "classes"]
    for place, each in enumerate(found):
        values = [own[place] for own in known.values()]
        expected = summary(values)
        assert {name: each[name] for name in expected} == pytest.approx(expected)
        assert each["p"] == pytest.approx(stats.ttest_rel(values, [0.0] * 3).pvalue)


def test_slopes_need_points_that_differ() -> None:
    assert slopes({}) == []
    assert slopes({0: [({}, 0.1)], 1: [({}, 0.2)]}) == []
    assert slopes({0: [({"draw": "balanced"}, 0.1), ({"draw": "independent"}, 0.2)]}) == []
    together = [({"images": size, "classes": size}, 0.1 * size) for size in (2, 4, 8)]
    assert slopes({0: together}) == []  # which of the two it is cannot be known
    whole, cut = [({"images": size}, float(np.log2(size))) for size in (2, 4)], [({"images": 2}, 5.0)]
    found = slopes({0: whole, 1: cut})
    assert found[0]["n"] == 1 and found[0]["mean"] == pytest.approx(1.0)


def test_rank_correlation_is_scipys() -> None:
    first, second = np.random.default_rng(3).normal(size=(2, 9)).tolist()
    expected: Any = stats.spearmanr(first, second)
    assert rank_correlation(first, second) == {
        "rho": pytest.approx(expected.statistic), "p": pytest.approx(expected.pvalue), "n": 9,
    }  # fmt: skip
    assert rank_correlation([1, 2, 3], [1, 2, 3])["rho"] is None
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4])["rho"] is None
