"""Norm ratios and cosines of streams, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from residualdroppath.analysis import streams
from residualdroppath.analysis.streams import StreamStatistics
from residualdroppath.errors import UserError

SHORTCUT = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
BRANCH = torch.tensor([[4.0, -3.0], [0.0, -1.0]])


def test_by_hand() -> None:
    statistics = StreamStatistics()
    statistics.update(0, SHORTCUT, BRANCH, SHORTCUT + BRANCH)
    (row,) = statistics.result()
    # First sample: orthogonal, equally long, so merged is at 45 degrees. Second: opposite, half as long.
    assert row["norm_ratio"] == pytest.approx((1 + 0.5) / 2, rel=1e-15)
    assert row["cosine"] == pytest.approx((0 - 1) / 2, rel=1e-15)
    assert row["block_influence"] == pytest.approx((1 - math.sqrt(0.5) + 0) / 2, rel=1e-14)


def test_block_influence_looks_at_what_comes_after_the_add() -> None:
    statistics = StreamStatistics()
    statistics.update(0, SHORTCUT, BRANCH, -SHORTCUT)
    assert statistics.result()[0]["block_influence"] == pytest.approx(2)
    assert statistics.result()[0]["norm_ratio"] == pytest.approx(0.75)


def test_batches_of_any_size_and_shape_are_one_sample_each(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    shortcut, branch = torch.randn(2, 11, 3, 2, 5, generator=generator, dtype=torch.float64)
    merged = torch.relu(shortcut + branch)
    statistics, rows_at_once, sums = StreamStatistics(), [], streams._sums
    monkeypatch.setattr(streams, "_sums", lambda *sides: rows_at_once.append(len(sides[0])) or sums(*sides))
    monkeypatch.setattr(streams, "ELEMENTS", 70)  # two rows of 30 at a time, and one
    for rows in (slice(0, 4), slice(4, 9), slice(9, 11)):
        statistics.update(0, shortcut[rows], branch[rows], merged[rows])
    assert rows_at_once == [2, 2, 2, 2, 1, 2]
    (row,) = statistics.result()
    flat = [side.flatten(1) for side in (shortcut, branch, merged)]
    cosine = torch.nn.functional.cosine_similarity
    expected = {
        "norm_ratio": (flat[1].norm(dim=1) / flat[0].norm(dim=1)).mean(),
        "cosine": cosine(flat[0], flat[1]).mean(),
        "block_influence": 1 - cosine(flat[0], flat[2]).mean(),
    }
    assert row == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-12)


def test_branches_are_kept_apart_and_a_missing_one_is_nan() -> None:
    statistics = StreamStatistics()
    statistics.update(2, SHORTCUT, 2 * SHORTCUT, 3 * SHORTCUT)
    statistics.update(0, SHORTCUT, -SHORTCUT, 0 * SHORTCUT)
    first, missing, last = statistics.result()
    assert first == pytest.approx({"norm_ratio": 1, "cosine": -1, "block_influence": 1})
    assert all(math.isnan(value) for value in missing.values())
    assert last == pytest.approx({"norm_ratio": 2, "cosine": 1, "block_influence": 0}, abs=1e-15)
    assert StreamStatistics().result() == []


def test_a_shortcut_of_zeros_has_no_ratio_and_a_cosine_of_zero() -> None:
    statistics = StreamStatistics()
    shortcut = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    statistics.update(0, shortcut, torch.tensor([[5.0, 0.0], [3.0, 0.0]]), torch.tensor([[5.0, 0.0], [4.0, 0.0]]))
    assert statistics.result() == [{"norm_ratio": 3.0, "cosine": 0.5, "block_influence": 0.5}]


def test_half_precision_is_summed_in_double() -> None:
    statistics = StreamStatistics()
    shortcut = torch.full((2, 1000), 300.0, dtype=torch.float16)  # the sum of squares overflows float16
    statistics.update(0, shortcut, shortcut, shortcut)
    assert statistics.result()[0] == pytest.approx({"norm_ratio": 1, "cosine": 1, "block_influence": 0}, abs=1e-14)


def test_a_broadcast_branch_counts_as_what_it_adds() -> None:
    statistics = StreamStatistics()
    statistics.update(0, torch.ones(2, 4), torch.ones(2, 1), torch.full((2, 4), 2.0))
    assert statistics.result()[0]["norm_ratio"] == pytest.approx(1)


def test_mistakes_are_said() -> None:
    statistics = StreamStatistics()
    with pytest.raises(UserError, match="at least 0"):
        statistics.update(-1, SHORTCUT, BRANCH, BRANCH)
    with pytest.raises(UserError, match=r"\[inputs, ...\]"):
        statistics.update(0, SHORTCUT[0], BRANCH[0], BRANCH[0])
    with pytest.raises(UserError, match="2, 3"):
        statistics.update(0, SHORTCUT, torch.ones(2, 3), BRANCH)
    with pytest.raises(UserError, match="2, 1"):
        statistics.update(0, SHORTCUT, BRANCH, torch.ones(2, 1))
