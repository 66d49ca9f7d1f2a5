"""Summaries, paired comparisons and Holm's correction, against scipy and figures by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from residualdroppath.experiments.studies.statistics import holm, p_value, paired, summary


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
