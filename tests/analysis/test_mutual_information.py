"""Information of known distributions, and of nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_regression
from sklearn.metrics import mutual_info_score

from residualdroppath.analysis.mutual_information import binned_information, ksg_information, ksg_with_null
from residualdroppath.errors import UserError


def gaussians(seed: int, rows: int, rho: float, width: int = 1) -> tuple[np.ndarray, np.ndarray]:
    x, noise = np.random.default_rng(seed).standard_normal((2, rows, width))
    return x, rho * x + np.sqrt(1 - rho**2) * noise


def test_bins_by_hand() -> None:
    """Values 0 to 9, labels of the lower and the upper half."""
    layer, labels = np.arange(10.0)[:, None], np.arange(10) >= 5
    assert binned_information(layer, labels, bins=2) == pytest.approx(1)  # the cut falls between the halves
    assert binned_information(layer, labels, bins=10) == pytest.approx(1)
    # Three bins: 0-2, 3-5, 6-9. The middle one holds two of the lower half and one of the upper.
    middle = 2 / 3 * np.log2(3 / 2) + 1 / 3 * np.log2(3)
    assert binned_information(layer, labels, bins=3) == pytest.approx(1 - 0.3 * middle)
    # Odd and even, in halves: 2 of 5 and 3 of 5.
    expected = 1 + 0.4 * np.log2(0.4) + 0.6 * np.log2(0.6)
    assert binned_information(layer, np.arange(10) % 2, bins=2) == pytest.approx(expected)


def test_bins_of_several_units_are_one_symbol() -> None:
    """An exclusive or: no unit alone knows the label, both together do."""
    layer = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5, dtype=float)
    labels = layer.sum(1) == 1
    assert binned_information(layer, labels, bins=2) == pytest.approx(1)
    assert binned_information(layer[:, :1], labels, bins=2) == pytest.approx(0, abs=1e-12)


def test_bins_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    layer = generator.standard_normal((2000, 1))
    labels = (layer[:, 0] + generator.standard_normal(2000) > 0).astype(int)
    edges = np.linspace(layer.min(), layer.max(), 31)
    expected = mutual_info_score(np.digitize(layer[:, 0], edges[1:-1]), labels) / np.log(2)
    assert binned_information(layer, labels) == pytest.approx(expected, rel=1e-9)
    assert binned_information(1e-6 * layer + 5, labels) == pytest.approx(expected, rel=1e-3)


def test_bins_span_the_whole_layer() -> None:
    """A small unit beside a large one falls into one bin."""
    labels = np.array([0, 1] * 20)
    small, large = 1e-3 * labels, np.linspace(-1, 1, 4).repeat(10)
    assert binned_information(small[:, None], labels) == pytest.approx(1)
    assert binned_information(np.stack([small, large], axis=1), labels) < 0.1


def test_bins_see_clustering_alone() -> None:
    """Nothing is known, yet every input has a symbol of its own: the whole label entropy. A constant layer: none."""
    layer = np.random.default_rng(1).standard_normal((200, 32))
    labels = np.arange(200) % 4
    assert binned_information(layer, labels) == pytest.approx(2)
    assert binned_information(np.ones((200, 3)), labels) == 0


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.9])
def test_ksg_of_gaussians(rho: float) -> None:
    x, y = gaussians(2, 4000, rho)
    assert ksg_information(x, y) == pytest.approx(-0.5 * np.log(1 - rho**2), abs=0.04)


def test_ksg_of_gaussians_in_two_dimensions() -> None:
    x, y = gaussians(3, 4000, 0.7, width=2)
    assert ksg_information(x, y) == pytest.approx(-np.log(1 - 0.49), abs=0.06)
    assert ksg_information(x, y[:, 0]) == pytest.approx(-0.5 * np.log(1 - 0.49), abs=0.06)


def test_ksg_does_not_see_scale_and_order_of_sides() -> None:
    x, y = gaussians(4, 500, 0.8)
    value = ksg_information(x, y)
    assert ksg_information(1e6 * x + 3, -1e-6 * y) == pytest.approx(value, abs=1e-6)
    assert ksg_information(y, x) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_ksg_is_its_formula(k: int) -> None:
    """All distances in a table, and counts by hand."""
    x, y = gaussians(5, 60, 0.6, width=2)
    own = [(side - side.mean(0)) / side.std(0) for side in (x, y)]
    apart = [np.abs(side[:, None] - side[None]).max(2) for side in own]
    both = np.maximum(*apart)
    np.fill_diagonal(both, np.inf)
    radius = np.sort(both, axis=1)[:, k - 1]
    counts = [(table < radius[:, None]).sum(1) - 1 for table in apart]
    expected = digamma(k) + digamma(60) - np.mean(digamma(counts[0] + 1) + digamma(counts[1] + 1))
    assert ksg_information(x, y, k) == pytest.approx(expected, abs=1e-6)


def test_ksg_agrees_with_scikit_learn() -> None:
    x, y = gaussians(6, 1000, 0.8)
    expected = mutual_info_regression(x, y[:, 0], n_neighbors=3, random_state=0)[0]
    assert ksg_information(x, y) == pytest.approx(expected, abs=1e-3)


def test_ksg_of_equal_points_is_finite_and_near_nothing_where_constant() -> None:
    x, y = gaussians(7, 300, 0.0)
    assert np.isfinite(ksg_information(np.round(x), y))
    assert abs(ksg_information(np.ones(300), y)) < 0.15


def test_ties_are_broken() -> None:
    """Two values on each side, the same: ln 2; with distances of 0 the estimate would be far below 0."""
    x = np.random.default_rng(12).integers(0, 2, 600).astype(float)
    assert ksg_information(x, x) == pytest.approx(np.log(2), abs=0.1)


def test_null_of_dependent_and_of_independent() -> None:
    found = ksg_with_null(*gaussians(8, 400, 0.8), shuffles=39, seed=0)
    assert found.value == ksg_information(*gaussians(8, 400, 0.8))
    assert abs(found.null_mean) < 3 * found.null_sd / np.sqrt(39) + 0.02
    assert found.value > found.null_mean + 8 * found.null_sd
    assert found.p == 1 / 40
    independent = [ksg_with_null(*gaussians(seed, 100, 0.0), shuffles=19, seed=seed).p for seed in range(100, 140)]
    assert min(independent) >= 1 / 20
    assert 0.35 < np.mean(independent) < 0.7  # uniform on 1/20 .. 1: mean 0.525, standard error 0.05
    assert sum(p <= 0.1 for p in independent) < 11  # 4 expected


def test_null_is_that_of_shuffled_rows() -> None:
    x, y = gaussians(11, 100, 0.5)
    generator = np.random.default_rng(4)
    expected = [ksg_information(x, generator.permutation(y)) for _ in range(5)]
    found = ksg_with_null(x, y, shuffles=5, seed=4)
    assert (found.null_mean, found.null_sd) == pytest.approx((np.mean(expected), np.std(expected, ddof=1)), rel=1e-6)


def test_the_seed_repeats_the_null() -> None:
    x, y = gaussians(9, 80, 0.3)
    assert ksg_with_null(x, y, seed=1) == ksg_with_null(x, y, seed=1)
    assert ksg_with_null(x, y, seed=1)[1:] != ksg_with_null(x, y, seed=2)[1:]


def test_rows_are_shuffled_whole() -> None:
    """The columns of y know each other; a null that took them apart would be one of other points."""
    x, y = gaussians(10, 200, 0.0)
    twice = np.concatenate([y, y], axis=1)  # in the maximum norm the same as y alone
    assert ksg_with_null(x, twice, seed=3)[1:3] == pytest.approx(ksg_with_null(x, y, seed=3)[1:3], abs=1e-3)


def test_mistakes_are_said() -> None:
    x, y = gaussians(0, 5, 0.0)
    with pytest.raises(UserError, match="5 and 4 rows"):
        ksg_information(x, y[:4])
    for k in (0, 5):
        with pytest.raises(UserError, match=f"k={k}"):
            ksg_information(x, y, k)
    with pytest.raises(UserError, match="`shuffles` must be at least 2"):
        ksg_with_null(x, y, shuffles=1)
    with pytest.raises(UserError, match="`bins` must be at least 2"):
        binned_information(x, np.arange(5), bins=1)
    with pytest.raises(UserError, match="class indices"):
        binned_information(x, np.eye(5))
