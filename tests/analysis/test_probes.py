"""Probes and reconstructions where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, r2_score
from sklearn.preprocessing import StandardScaler

from residualdroppath.analysis.probes import label_entropy_bits, probe, reconstruction_r2, reduce_width
from residualdroppath.errors import UserError


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def labels_of(seed: int, rows: int, weights: list[float]) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(weights), rows, p=weights)


def test_label_entropy() -> None:
    assert label_entropy_bits(np.repeat(np.arange(8), 5)) == pytest.approx(3)
    assert label_entropy_bits(["cat"] * 3 + ["dog"]) == pytest.approx(0.75 * np.log2(4 / 3) + 0.25 * 2)
    assert label_entropy_bits([7, 7]) == 0


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.7, 0.2, 0.1]])
def test_features_that_know_nothing_leave_the_entropy(weights: list[float]) -> None:
    labels, held_out = labels_of(0, 3000, weights), labels_of(1, 3000, weights)
    found = probe(normal(2, 3000, 10), labels, normal(3, 3000, 10), held_out)
    assert found.bits == pytest.approx(label_entropy_bits(held_out), abs=0.02)
    assert found.accuracy == pytest.approx(max(weights), abs=0.03)


def test_many_useless_features_on_few_rows_do_little_harm() -> None:
    """The penalty is chosen on rows that were not fitted: without a penalty this is some bits worse."""
    labels, held_out = labels_of(4, 200, [0.5, 0.5]), labels_of(5, 1000, [0.5, 0.5])
    assert probe(normal(6, 200, 150), labels, normal(7, 1000, 150), held_out).bits < 1.05


def test_separable_labels_leave_no_bits() -> None:
    labels = np.arange(900) % 3
    centres = np.array([[5.0, 0.0], [-5.0, 5.0], [-5.0, -5.0]])
    features = centres[labels] + 0.1 * normal(8, 900, 2)
    found = probe(1e3 * features[:600], labels[:600], 1e3 * features[600:], labels[600:])
    assert found.accuracy == 1
    assert 0 <= found.bits < 0.01


def test_bits_of_a_logistic_model_are_its_conditional_entropy() -> None:
    """P(y = 1 | x) = sigmoid(2 x): the best affine probe is the truth itself."""
    x = normal(9, 40000, 1)
    truth = 1 / (1 + np.exp(-2 * x[:, 0]))
    labels = (np.random.default_rng(10).random(40000) < truth).astype(int)
    expected = -(truth * np.log2(truth) + (1 - truth) * np.log2(1 - truth)).mean()
    found = probe(x[:20000], labels[:20000], x[20000:], labels[20000:])
    assert found.bits == pytest.approx(expected, abs=0.01)
    assert found.accuracy == pytest.approx(np.maximum(truth, 1 - truth).mean(), abs=0.01)


@pytest.mark.parametrize("classes", [2, 4])
def test_bits_and_accuracy_are_scikit_learns_for_one_of_the_penalties(classes: int) -> None:
    labels = labels_of(11, 800, [1 / classes] * classes)
    names = np.array(["d", "b", "c", "a"])[labels]
    features = normal(12, 800, 6) + 0.8 * labels[:, None] * normal(13, 1, 6)
    found = probe(features[:500], names[:500], features[500:], names[500:])
    scaler = StandardScaler().fit(features[:500])
    expected = []
    for penalty in 10.0 ** np.arange(-4, 3):
        model = LogisticRegression(C=penalty, max_iter=1000, tol=1e-8)
        model.fit(scaler.transform(features[:500]), names[:500])
        held_out = scaler.transform(features[500:])
        bits = log_loss(names[500:], model.predict_proba(held_out), labels=model.classes_) / np.log(2)
        expected.append((bits, model.score(held_out, names[500:])))
    nearest = min(expected, key=lambda pair: abs(pair[0] - found.bits))
    assert found.bits == pytest.approx(nearest[0], abs=1e-3)
    assert found.accuracy == pytest.approx(nearest[1], abs=0.01)
    assert found.bits < min(expected)[0] + 0.05


def test_the_seed_repeats_and_test_rows_choose_nothing() -> None:
    labels = labels_of(14, 300, [0.5, 0.5])
    features = normal(15, 300, 5) + labels[:, None]
    whole = probe(features[:200], labels[:200], features[200:], labels[200:], seed=3)
    assert whole == probe(features[:200], labels[:200], features[200:], labels[200:], seed=3)
    halves = [
        probe(features[:200], labels[:200], features[rows], labels[rows], seed=3)
        for rows in np.r_[200:300].reshape(2, 50)
    ]
    assert np.mean([half.bits for half in halves]) == pytest.approx(whole.bits, rel=1e-12)


def test_a_rare_label_is_fitted() -> None:
    labels = np.array([0] * 50 + [1] * 50 + [2])
    features = 10 * np.eye(3)[labels] + 0.1 * normal(16, 101, 3)
    assert probe(features, labels, features, labels).accuracy == 1


def test_constant_features_leave_the_entropy() -> None:
    labels = np.array([0, 0, 0, 1] * 50)
    found = probe(np.ones((200, 3)), labels, np.ones((200, 3)), labels)
    assert found.bits == pytest.approx(label_entropy_bits(labels), abs=1e-3)


def test_a_linear_map_is_reconstructed() -> None:
    features = 5 + normal(17, 400, 8) * np.logspace(-3, 3, 8)
    targets = features[:, :4] @ normal(18, 4, 3) + 7
    assert reconstruction_r2(features[:200], targets[:200], features[200:], targets[200:]) == pytest.approx(1, abs=1e-6)


def test_noise_is_not_reconstructed() -> None:
    features, targets = normal(19, 2000, 20), normal(20, 2000, 3)
    r2 = reconstruction_r2(features[:1000], targets[:1000], features[1000:], targets[1000:])
    assert r2 == pytest.approx(0, abs=0.01)


def test_r2_is_the_share_of_signal_in_the_variance() -> None:
    """y = x + noise of variance 1/4 explains 4/5; a column of ten times the variance counts ten times."""
    x, noise = normal(21, 20000, 2), normal(22, 20000, 2)
    targets = np.stack([x[:, 0] + 0.5 * noise[:, 0], np.sqrt(12.5) * noise[:, 1]], axis=1)  # variances 1.25 and 12.5
    r2 = reconstruction_r2(x[:10000], targets[:10000, 0], x[10000:], targets[10000:, 0])
    assert r2 == pytest.approx(0.8, abs=0.01)
    r2 = reconstruction_r2(x[:10000], targets[:10000], x[10000:], targets[10000:])
    assert r2 == pytest.approx(0.8 / 11, abs=0.01)


def test_r2_is_negative_for_a_wrong_mean() -> None:
    assert reconstruction_r2(normal(23, 50, 2), np.arange(50.0), normal(24, 50, 2), np.arange(50.0) + 1000) < -100


def test_r2_chooses_a_penalty_where_rows_are_few() -> None:
    """100 features on 120 rows: least squares fails, the best penalty of a fine search is nearly reached."""
    features = normal(25, 1120, 100)
    targets = features[:, :5] @ normal(26, 5, 2) + 3 * normal(27, 1120, 2)
    train, test = slice(0, 120), slice(120, 1120)
    found = reconstruction_r2(features[train], targets[train], features[test], targets[test])

    def r2(penalty: float) -> float:
        model = Ridge(alpha=penalty).fit(features[train], targets[train])
        return float(r2_score(targets[test], model.predict(features[test]), multioutput="variance_weighted"))

    assert r2(1e-9) < 0
    assert found > max(map(r2, np.logspace(-1, 4, 26))) - 0.05


def test_r2_does_not_see_the_scale_of_units() -> None:
    features, targets = normal(29, 200, 30), normal(30, 200, 2)
    targets += features[:, :2]
    r2 = [
        reconstruction_r2(scaled[:100], targets[:100], scaled[100:], targets[100:])
        for scaled in (features, features * np.logspace(-3, 3, 30))
    ]
    assert r2[1] == pytest.approx(r2[0], abs=1e-6)
    assert 0.2 < r2[0] < 0.6


def test_reduced_width_keeps_distances_and_is_the_same_every_time() -> None:
    features = normal(28, 40, 3000).astype(np.float32)
    reduced = reduce_width(features, 1000, seed=1)
    assert reduced.shape == (40, 1000) and reduced.dtype == np.float32
    ratio = np.linalg.norm(reduced[1:] - reduced[:-1], axis=1) / np.linalg.norm(features[1:] - features[:-1], axis=1)
    assert np.abs(ratio - 1).max() < 0.12  # 1 / sqrt(2 * 1000) is one standard deviation
    parts = [reduce_width(features[rows], 1000, seed=1) for rows in (slice(0, 15), slice(15, 40))]
    assert np.allclose(np.concatenate(parts), reduced, rtol=0, atol=1e-4)
    assert not np.allclose(reduce_width(features, 1000, seed=2), reduced)
    assert reduce_width(features, 3000) is features


def test_mistakes_are_said() -> None:
    x, y = normal(0, 6, 2), np.array([0, 1] * 3)
    with pytest.raises(UserError, match="1 others|and 1"):
        probe(x, y, x, np.array([0, 1, 2] * 2))
    with pytest.raises(UserError, match="two labels or more"):
        probe(x, np.zeros(6), x, np.zeros(6))
    with pytest.raises(UserError, match="some label twice"):
        probe(x, np.arange(6), x, np.arange(6))
    with pytest.raises(UserError, match=r"shape \[6\], got \[6, 2\]"):
        probe(x, np.eye(2)[y], x, y)
    with pytest.raises(UserError, match="same columns, got 2 and 1"):
        probe(x, y, x[:, :1], y)
    with pytest.raises(UserError, match="`features_test` must be finite"):
        probe(x, y, x * np.nan, y)
    with pytest.raises(UserError, match="`targets_train` must have the rows of `features_train`, 6, got 5"):
        reconstruction_r2(x, y[:5], x, y)
    with pytest.raises(UserError, match="vary"):
        reconstruction_r2(x, y, x, np.ones(6))
    with pytest.raises(UserError, match="at least 1"):
        reduce_width(x, 0)
