"""Differences paired by seed, means over seeds, and the words of the answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from residualdroppath.experiments.spiral.config import SpiralConfig
from residualdroppath.experiments.spiral.summary import answer, summarise

SCALARS = ("recreated", "reuse", "norm_ratio", "train_loss", "test_accuracy")


def results(recreated: list[float], reuse: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "scalars": {"recreated": count, "reuse": r, "norm_ratio": 0.1, "train_loss": 0.1, "test_accuracy": 0.9},
            "sweep": [[count, 0]],
            "profiles": {"reuse": [r, r + 0.5]},
            "matrices": {"relations": [[r]]},
        }
        for count, r in zip(recreated, reuse, strict=True)
    ]


def record(ours: tuple[list[float], list[float]], plain: tuple[list[float], list[float]]) -> dict[str, Any]:
    config = SpiralConfig(methods=("plain", "residual_drop_path"), seeds=len(plain[0]))
    rows = {"untrained": results(*plain), "plain": results(*plain), "residual_drop_path": results(*ours)}
    return {"config": config.model_dump(mode="json"), "rows": summarise(config, rows)}


def test_differences_are_paired_by_seed() -> None:
    ours, plain = [3.0, 14.0, 25.0], [5.0, 15.0, 28.0]
    rows = record((ours, [0.5] * 3), (plain, [0.5] * 3))["rows"]
    found = rows["residual_drop_path"]["against_plain"]["recreated"]
    expected = stats.ttest_rel(ours, plain).confidence_interval(0.95)
    assert found["values"] == [-2.0, -1.0, -3.0]
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert rows["plain"]["against_plain"] is None and rows["untrained"]["against_plain"] is None


def test_profiles_and_matrices_are_means() -> None:
    row = record(([1.0, 3.0], [0.2, 0.4]), ([1.0, 1.0], [0.1, 0.1]))["rows"]["residual_drop_path"]
    profile = row["profiles"]["reuse"]
    assert profile["mean"] == pytest.approx([0.3, 0.8])
    half = stats.t.ppf(0.975, 1) * np.std([0.2, 0.4], ddof=1) / 2**0.5
    assert profile["high"] == pytest.approx([0.3 + half, 0.8 + half], abs=1e-4)
    assert row["sweep"] == [[2.0, 0.0]] and row["matrices"]["relations"] == [[pytest.approx(0.3)]]


LESS, MORE, SAME, UNCLEAR = [1.0, 1.1, 0.9], [9.0, 9.1, 9.2], [5.0, 5.1, 5.2], [1.0, 9.0, 5.0]


@pytest.mark.parametrize(
    ("recreated", "reuse", "words"),
    [
        (LESS, MORE, "Yes, both"),
        (LESS, UNCLEAR, "It lowers recreated units; no difference in reuse"),
        (UNCLEAR, MORE, "It raises reuse; no difference in recreated"),
        (LESS, LESS, "but reuse too"),
        (MORE, MORE, "but recreated units too"),
        (UNCLEAR, UNCLEAR, "No difference is shown in either"),
        (MORE, UNCLEAR, "No: recreated units rise"),
        (UNCLEAR, LESS, "No: reuse falls"),
        (MORE, LESS, "No, the opposite of both"),
    ],
)
def test_the_answer_is_what_the_intervals_allow(recreated: list[float], reuse: list[float], words: str) -> None:
    assert words in answer(record((recreated, reuse), (SAME, SAME)))


def test_no_answer_from_one_seed_or_one_method() -> None:
    assert "One seed" in answer(record(([1.0], [1.0]), ([2.0], [2.0])))
    config = SpiralConfig(methods=("plain",), seeds=2)
    rows = summarise(config, {name: results([1.0, 2.0], [1.0, 2.0]) for name in config.rows})
    assert "nothing to compare" in answer({"config": config.model_dump(mode="json"), "rows": rows})
