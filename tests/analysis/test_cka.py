"""CKA against its sum over tuples, against a second implementation, and where the answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from residualdroppath.analysis import cka as cka_module
from residualdroppath.analysis.cka import MinibatchCKA, cka, hsic_unbiased
from residualdroppath.errors import UserError


def features(seed: int, rows: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width))


def gram(x: np.ndarray) -> np.ndarray:
    return x @ x.T


def hsic_over_tuples(first: np.ndarray, second: np.ndarray) -> float:
    """Song et al. 2012: means over pairs, quadruples and triples of different rows."""
    rows = range(len(first))
    pairs = np.mean([first[i, j] * second[i, j] for i, j in itertools.permutations(rows, 2)])
    four = np.mean([first[i, j] * second[q, r] for i, j, q, r in itertools.permutations(rows, 4)])
    three = np.mean([first[i, j] * second[i, q] for i, j, q in itertools.permutations(rows, 3)])
    return float(pairs + four - 2 * three)


def nguyen(batches: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Minibatch CKA as in Nguyen et al. 2021, eq. 2 and 3, written line by line with matrices of ones."""

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        k, m = k.copy(), m.copy()
        k[range(n), range(n)] = m[range(n), range(n)] = 0
        one = np.ones((n, 1))
        middle = (one.T @ k @ one @ one.T @ m @ one) / ((n - 1) * (n - 2))
        last = 2 / (n - 2) * (one.T @ k @ m @ one)
        return float((np.trace(k @ m) + middle - last).item() / (n * (n - 3)))

    across = np.mean([hsic(gram(x), gram(y)) for x, y in batches])
    own = np.mean([hsic(gram(x), gram(x)) for x, _ in batches]) * np.mean([hsic(gram(y), gram(y)) for _, y in batches])
    return float(across / np.sqrt(own))


def test_hsic_is_its_mean_over_tuples() -> None:
    first, second = gram(features(0, 6, 3)), gram(features(1, 6, 2))
    assert hsic_unbiased(first, second) == pytest.approx(hsic_over_tuples(first, second), rel=1e-10)
    assert hsic_unbiased(first, second) == pytest.approx(hsic_unbiased(second, first), rel=1e-12)


def test_hsic_is_unbiased_where_biased_hsic_is_not() -> None:
    """For x = y standard normal in one dimension and linear kernels, HSIC is var(x)^2 = 1; of independent ones 0."""
    own, across = [], []
    for seed in range(2000):
        x, y = features(seed, 5, 2).T[:, :, None]
        own.append(hsic_unbiased(gram(x), gram(x)))
        across.append(hsic_unbiased(gram(x), gram(y)))
    for values, expected in ((own, 1.0), (across, 0.0)):
        assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(len(values))
    assert min(across) < 0


def test_minibatches_agree_with_a_second_implementation() -> None:
    layers = [features(3, 90, 7) + 1]
    layers.append(layers[0] @ features(4, 7, 5) + features(5, 90, 5))
    layers.append(features(6, 90, 4))
    rows = [range(0, 30), range(30, 60), range(60, 90)]
    estimate = MinibatchCKA()
    for batch in rows:
        estimate.update([layer[batch] for layer in layers])
    found = estimate.result()
    for one, other in itertools.product(range(3), repeat=2):
        expected = nguyen([(layers[one][batch], layers[other][batch]) for batch in rows])
        assert found[one, other] == pytest.approx(expected, abs=1e-10)
    assert np.array_equal(found, found.T)
    assert found.dtype == np.float64


def test_the_published_torch_cka_says_the_same() -> None:
    """Values of torch_cka 0.21 (AntixK/PyTorch-Model-Compare) in float64, on the same layers in batches of 12."""
    x = np.sin(np.arange(1, 49)[:, None] * np.sqrt(np.arange(2, 8)))
    layers = [x, np.tanh(x * np.arange(6)) + x[:, :1], x[:, [0, 3]] ** 2]
    estimate = MinibatchCKA()
    for start in range(0, 48, 12):
        estimate.update([layer[start : start + 12] for layer in layers])
    first, second, third = 0.606120578439992, 0.129260949084985, -0.014014351156896
    expected = [[1, first, second], [first, 1, third], [second, third, 1]]
    assert np.allclose(estimate.result(), expected, rtol=0, atol=1e-12)


def test_batches_weigh_by_their_pairs() -> None:
    """20 rows and 8: 20 * 17 against 8 * 5, as sums of U-centred kernels have it."""
    x, y = features(20, 28, 3), features(21, 28, 2)
    y = y + x[:, :2]
    estimate = MinibatchCKA()
    across = own_x = own_y = 0.0
    for rows, weight in ((slice(0, 20), 20 * 17), (slice(20, 28), 8 * 5)):
        estimate.update([x[rows], y[rows]])
        kernels = gram(x[rows]), gram(y[rows])
        across += weight * hsic_unbiased(*kernels)
        own_x += weight * hsic_unbiased(kernels[0], kernels[0])
        own_y += weight * hsic_unbiased(kernels[1], kernels[1])
    assert estimate.result()[0, 1] == pytest.approx(across / np.sqrt(own_x * own_y), rel=1e-10)


def test_one_for_what_differs_by_scale_shift_and_rotation() -> None:
    x = features(7, 60, 6)
    rotation = np.linalg.qr(features(8, 6, 6))[0]
    assert cka(x, x) == pytest.approx(1, abs=1e-12)
    assert cka(x, 1e4 + 3 * x @ rotation) == pytest.approx(1, abs=1e-9)
    assert cka(x, x @ np.diag([30, 1, 1, 1, 1, 1])) < 0.5  # no other linear map


def test_known_correlation_of_gaussians() -> None:
    """For standard normal x and y with correlations rho_i of their columns, CKA is the mean of rho_i^2."""
    rho = np.array([0.9, 0.5, 0.0])
    x, noise = features(9, 2000, 3), features(10, 2000, 3)
    assert cka(x, rho * x + np.sqrt(1 - rho**2) * noise) == pytest.approx(np.mean(rho**2), abs=0.03)


def test_independent_wide_features_are_zero_on_average_and_may_be_negative() -> None:
    """Where biased CKA would be near 1: 1,000 units on 20 inputs."""
    values = [cka(features(2 * seed, 20, 1000), features(2 * seed + 1, 20, 1000)) for seed in range(30)]
    assert abs(np.mean(values)) < 0.05
    assert min(values) < 0


def test_an_inner_product_of_u_centred_kernels() -> None:
    """Szekely & Rizzo 2014: the reason why nothing is above 1."""
    kernels = [gram(features(seed, 9, 3)) for seed in (18, 19)]
    centred = []
    for kernel in kernels:
        hollow = kernel - np.diag(np.diag(kernel))
        sums = hollow.sum(0) / 7
        centred.append(hollow - sums - sums[:, None] + hollow.sum() / (8 * 7))
        np.fill_diagonal(centred[-1], 0)
    assert hsic_unbiased(*kernels) == pytest.approx((centred[0] * centred[1]).sum() / (9 * 6), rel=1e-10)


def test_the_mean_is_taken_before_the_ratio() -> None:
    """Many small batches agree with one large one; a mean of ratios would not."""
    x = features(11, 2000, 3)
    y = 0.7 * x + features(12, 2000, 3)
    estimate, whole = MinibatchCKA(), cka(x, y)
    for rows in np.arange(2000).reshape(-1, 5):
        estimate.update([x[rows], y[rows]])
    assert estimate.result()[0, 1] == pytest.approx(whole, abs=0.02)
    ratios = [cka(x[rows], y[rows]) for rows in np.arange(2000).reshape(-1, 5)]
    assert abs(np.mean(ratios) - whole) > 0.04


def test_tensors_maps_and_slices_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.from_numpy(features(13, 8, 60)).reshape(8, 3, 4, 5)
    other = torch.from_numpy(features(14, 8, 6)).float()
    expected = cka(maps.flatten(1).numpy(), other.double().numpy())
    monkeypatch.setattr(cka_module, "COLUMNS", 7)
    assert cka(maps.requires_grad_(), other) == pytest.approx(expected, abs=1e-12)


def test_float32_with_a_large_mean_loses_nothing_but_its_own_rounding() -> None:
    x = (features(15, 50, 4) + 1000).astype(np.float32)
    y = (features(16, 50, 4) + 1000).astype(np.float32)
    expected = cka(x.astype(np.float64) - 1000, y.astype(np.float64) - 1000)
    assert cka(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, abs=1e-12)


def test_a_constant_layer_has_no_cka() -> None:
    estimate = MinibatchCKA()
    estimate.update([np.ones((6, 2)), features(17, 6, 2)])
    found = estimate.result()
    assert np.isnan(found[0]).all()
    assert found[1, 1] == pytest.approx(1)


def test_mistakes_are_said() -> None:
    estimate = MinibatchCKA()
    with pytest.raises(UserError, match="call `update` first"):
        estimate.result()
    with pytest.raises(UserError, match=r"at least 4, got rows \[3\]"):
        estimate.update([features(0, 3, 2)] * 2)
    with pytest.raises(UserError, match=r"rows \[4, 5\]"):
        estimate.update([features(0, 4, 2), features(0, 5, 2)])
    estimate.update([features(0, 4, 2)] * 2)
    with pytest.raises(UserError, match="2 of them, got 3"):
        estimate.update([features(0, 4, 2)] * 3)
    with pytest.raises(UserError, match="finite"):
        estimate.update([np.full((4, 2), np.inf)] * 2)
    with pytest.raises(UserError, match="one row per input"):
        estimate.update([np.ones(4)] * 2)
    with pytest.raises(UserError, match="same size"):
        hsic_unbiased(np.ones((4, 4)), np.ones((4, 5)))
