"""Alike, made again, reused: hand-built layers whose answers are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.linalg import hadamard

from residualdroppath.analysis.units import (
    Closest,
    Recreated,
    closest,
    correlations,
    max_correlations,
    recreated,
    recreated_sweep,
    reuse,
)
from residualdroppath.errors import UserError

WAVES = hadamard(16)[:, 1:].astype(float)  # 15 units over 16 inputs: mean 0, uncorrelated
A, B, C, D, E, F = WAVES[:, :6].T


def layer(*units: np.ndarray) -> np.ndarray:
    return np.stack(units, axis=1)


def at(angle: float, first: np.ndarray = A, second: np.ndarray = B) -> np.ndarray:
    """A unit whose r with `first` is `angle`."""
    return angle * first + np.sqrt(1 - angle**2) * second


def test_correlations_are_numpys_without_sign_and_scale() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((50, 3)), generator.standard_normal((50, 4))
    expected = np.abs(np.corrcoef(a.T, b.T)[:3, 3:])
    assert np.allclose(correlations(a, b), expected, rtol=0, atol=1e-14)
    assert np.allclose(correlations(100 - 7 * a, b), expected, rtol=0, atol=1e-13)
    assert (correlations(a, a) <= 1).all()


def test_constant_units_have_no_correlation() -> None:
    rounded = np.float32(1000) + np.spacing(np.float32(1000)) * (np.arange(16) % 2).astype(
        np.float32
    )  # float32's last bit
    unlike = layer(np.full(16, 0.1), rounded.astype(np.float64), A)
    assert np.array_equal(correlations(unlike, unlike), np.diag([0.0, 0.0, 1.0]))
    assert correlations(layer(1000 + 0.1 * A), layer(A)) == pytest.approx(1)  # small beside its mean, yet no rounding


def test_closest_equals_a_slow_search() -> None:
    generator = np.random.default_rng(1)
    layers = [generator.standard_normal((40, width)) for width in (3, 1, 5, 2)]
    found = closest(layers)
    for one, other in itertools.product(range(4), repeat=2):
        table = correlations(layers[one], layers[other])
        for unit in range(layers[one].shape[1]):
            rest = [(r, index) for index, r in enumerate(table[unit]) if (one, unit) != (other, index)]
            best, index = max(rest, default=(0.0, -1))
            assert found.r[one][other, unit] == pytest.approx(best, abs=1e-12)
            assert found.unit[one][other, unit] == index
    tables = max_correlations(layers)
    assert [table.shape for table in tables] == [(0, 3), (1, 1), (2, 5), (3, 2)]
    assert np.array_equal(tables[3][1], found.r[3][1])


def test_a_unit_that_comes_back_is_recreated() -> None:
    found = recreated([layer(A, B), layer(C, D), layer(E, A)])
    assert found.source == [(2, 1, 0, 0)]
    assert (found.count, found.share, found.per_layer.tolist()) == (1, 0.5, [0, 0, 1])


def test_sign_and_scale_do_not_matter() -> None:
    assert recreated([layer(B, A), layer(C, D), layer(5 - 3 * A, E)]).source == [(2, 0, 0, 1)]


def test_consecutive_layers_do_not_count() -> None:
    assert recreated([layer(A), layer(A), layer(A), layer(A)]).count == 0
    two = recreated([layer(A), layer(A)])
    assert (two.count, two.share, two.per_layer.tolist()) == (0, 0.0, [0, 0])


def test_a_unit_that_stays_after_its_return_counts_once() -> None:
    assert recreated([layer(A), layer(B), layer(A), layer(A), layer(A)]).source == [(2, 0, 0, 0)]


def test_a_second_return_counts_again_from_the_last_time() -> None:
    found = recreated([layer(A), layer(B), layer(A), layer(B), layer(A)])
    assert found.source == [(2, 0, 0, 0), (3, 0, 1, 0), (4, 0, 2, 0)]
    assert found.per_layer.tolist() == [0, 0, 1, 1, 1]


def test_far_returns_name_their_source() -> None:
    assert recreated([layer(F, A), layer(B), layer(C), layer(D), layer(A)]).source == [(4, 0, 0, 1)]


def test_a_unit_half_kept_between_is_not_lost() -> None:
    for between, count in ((0.79, 1), (0.81, 0)):
        assert recreated([layer(A), layer(at(between)), layer(A)]).count == count
    # One layer of two between is enough to have kept it.
    assert recreated([layer(A), layer(C), layer(at(0.9)), layer(A)]).count == 0


def test_a_unit_not_quite_the_same_is_not_recreated() -> None:
    for again, count in ((0.951, 1), (0.949, 0)):
        assert recreated([layer(A), layer(C), layer(at(again))]).count == count
    # The nearest layer with something alike decides: 0.9 is not the same, and hides the layer before it.
    assert recreated([layer(A), layer(C), layer(at(0.9)), layer(D), layer(A)]).count == 0


def test_thresholds_same_is_met_at_equality_and_lost_is_not() -> None:
    def count(first: float, between: float) -> int:
        r = [np.zeros((3, 1)), np.zeros((3, 1)), np.array([[first], [between], [0.0]])]
        return recreated(Closest(r, [np.zeros((3, 1), dtype=np.int64)] * 3)).count

    below = float(np.nextafter(0.8, 0))
    assert count(0.95, below) == 1
    assert count(0.95, 0.8) == 0
    assert count(float(np.nextafter(0.95, 0)), below) == 0


def test_a_constant_unit_is_never_recreated_and_hides_nothing() -> None:
    constant = np.full(16, 3.0)
    assert recreated([layer(constant), layer(B), layer(constant)]).count == 0
    assert recreated([layer(A), layer(constant), layer(A)]).count == 1


def by_definition(layers: list[np.ndarray], same: float, lost: float) -> list[tuple[int, int]]:
    """The words of the definition, one loop each."""
    found = []
    for own, units in enumerate(layers):
        for unit in range(units.shape[1]):
            best = [correlations(units[:, [unit]], before).max() for before in layers[:own]]
            if any(best[k] >= same and all(r < lost for r in best[k + 1 :]) for k in range(own - 1)):
                found.append((own, unit))
    return found


def test_recreated_and_its_sweep_equal_the_definition() -> None:
    generator = np.random.default_rng(2)
    layers = [generator.standard_normal((6, 5)) for _ in range(7)]  # few inputs: large r by chance
    sames, losts = (0.9, 0.95, 0.99), (0.5, 0.7, 0.9)
    expected = np.array([[len(by_definition(layers, same, lost)) for lost in losts] for same in sames])
    assert expected.min() < expected.max()
    assert np.array_equal(recreated_sweep(layers, sames, losts), expected)
    found = recreated(layers, 0.9, 0.7)
    assert [(own, unit) for own, unit, _, _ in found.source] == by_definition(layers, 0.9, 0.7)
    for own, unit, before, other in found.source:
        assert correlations(layers[own], layers[before])[unit, other] >= 0.9
    assert found.share == found.count / 25
    assert recreated_sweep(closest(layers)).shape == (5, 4)


def test_reuse_is_the_mean_of_the_best_in_the_layer_before() -> None:
    found = reuse([layer(A, B), layer(at(0.6), C), layer(at(0.6), C)])
    # at(0.6) has r 0.6 with A and 0.8 with B, C has none of both; then all stays.
    assert np.allclose(found, [0.4, 1.0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([np.ones((4, 2)), np.ones((5, 2))], r"rows \[4, 5\]"),
        ([np.ones((1, 2))], r"at least 2"),
        ([], r"one or more"),
        ([np.array([[1.0], [np.nan]])], r"finite"),
        ([np.ones((4, 2, 2))], r"\[4, 2, 2\]"),
    ],
)
def test_what_is_no_set_of_layers_is_said(layers: list[np.ndarray], message: str) -> None:
    with pytest.raises(UserError, match=message):
        closest(layers)


@pytest.mark.parametrize(("same", "lost"), [(0.8, 0.9), (1.1, 0.5), (0.9, 0.0)])
def test_thresholds_out_of_order_are_said(same: float, lost: float) -> None:
    with pytest.raises(UserError, match="lost <= same"):
        recreated([layer(A)], same, lost)
    assert isinstance(recreated([layer(A)], 0.9, 0.9), Recreated)
