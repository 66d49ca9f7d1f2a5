"""Duplicates, effective units and development, of hand-built layers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import hadamard

from residualdroppath.analysis.relations import alike_in_development, duplicates, effective_units, relation_matrix
from residualdroppath.analysis.units import closest, correlations, reuse
from residualdroppath.errors import UserError

WAVES = hadamard(16)[:, 1:].astype(float)  # 15 units over 16 inputs: mean 0, uncorrelated


def at(angle: float, first: int, second: int) -> np.ndarray:
    """A unit whose r with wave `first` is `angle`."""
    return angle * WAVES[:, first] + np.sqrt(1 - angle**2) * WAVES[:, second]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_relation_matrix_by_hand() -> None:
    first = WAVES[:, [0, 1]]
    second = np.stack([at(0.6, 0, 5), -WAVES[:, 0], WAVES[:, 0]], axis=1)
    expected = [
        [0.0, (1 + 0) / 2],  # the first wave is in the second layer, the other is not
        [(0.6 + 1 + 1) / 3, (0.6 + 1 + 1) / 3],
    ]
    assert np.allclose(relation_matrix([first, second]), expected, rtol=0, atol=1e-12)


def test_relation_matrix_of_any_layers() -> None:
    layers = [normal(seed, 30, 4 + seed) for seed in range(4)]
    found = relation_matrix(layers)
    assert np.allclose(np.diagonal(found, -1), reuse(layers), rtol=0, atol=1e-12)
    assert found[1, 3] == pytest.approx(correlations(layers[1], layers[3]).max(1).mean())
    assert found[3, 1] == pytest.approx(correlations(layers[1], layers[3]).max(0).mean())
    own = correlations(layers[2], layers[2]) - 2 * np.eye(6)
    assert found[2, 2] == pytest.approx(own.max(1).mean())
    assert np.array_equal(relation_matrix(closest(layers)), found)


def test_duplicates_by_hand() -> None:
    layer = np.stack([WAVES[:, 0], WAVES[:, 1], 2 - 3 * WAVES[:, 0], WAVES[:, 2], WAVES[:, 1], WAVES[:, 0]], axis=1)
    share, groups = duplicates(layer)
    assert groups == [[0, 2, 5], [1, 4]]
    assert share == pytest.approx(5 / 6)


def test_duplicates_come_in_chains() -> None:
    """r(0, 1) = r(1, 2) = 0.8 and r(0, 2) = 0.28: one group at 0.79, none at 0.81."""
    middle, side = WAVES[:, 0], WAVES[:, 1]
    layer = np.stack([0.8 * middle + 0.6 * side, middle, 0.8 * middle - 0.6 * side], axis=1)
    assert duplicates(layer, 0.79) == (1.0, [[0, 1, 2]])
    assert duplicates(layer, 0.81) == (0.0, [])


def test_constant_and_single_units_have_no_duplicate() -> None:
    assert duplicates(np.stack([np.ones(16), 2 * np.ones(16), WAVES[:, 0]], axis=1)) == (0.0, [])
    assert duplicates(WAVES[:, :1]) == (0.0, [])


def test_duplicates_are_the_units_with_a_close_other() -> None:
    layer = normal(0, 8, 40)  # few inputs: large r by chance
    share, groups = duplicates(layer, 0.9)
    expected = (correlations(layer, layer) - 2 * np.eye(40)).max(1) >= 0.9
    assert 0 < share < 1
    assert sorted(sum(groups, [])) == np.flatnonzero(expected).tolist()
    assert share == pytest.approx(expected.mean())


def test_effective_units_of_known_spectra() -> None:
    assert effective_units(WAVES) == pytest.approx(15)
    assert effective_units(1 + WAVES[:, [3, 3, 3]] * [1, -5, 0.01]) == pytest.approx(1)
    assert effective_units(WAVES[:, [0, 0, 1, 1, 1, 2]]) == pytest.approx(36 / (4 + 9 + 1))
    # Two units with correlation rho have the eigenvalues 1 + rho and 1 - rho.
    assert effective_units(np.stack([WAVES[:, 0], at(0.6, 0, 1)], axis=1)) == pytest.approx(4 / (2 + 2 * 0.36))


def test_effective_units_are_the_participation_ratio_of_eigenvalues() -> None:
    for rows, width in ((50, 7), (5, 12)):
        layer = normal(1, rows, width)
        eigenvalues = np.linalg.eigvalsh(np.corrcoef(layer.T))
        assert effective_units(layer) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def test_constant_units_do_not_count_as_effective() -> None:
    constant = np.full((16, 2), 0.1)
    assert effective_units(np.concatenate([WAVES[:, :3], constant], axis=1)) == pytest.approx(3)
    assert effective_units(constant) == 0


def test_development_by_hand() -> None:
    """Five units with starts of their own: 0, 2 and 3 change alike (one mirrored), 1 by itself, 4 not at all."""
    paths = np.array([[0.0, 1.0, 3.0], [0.0, 2.0, 1.0]])[:, :, None]  # [directions, checkpoints, 1]
    first, second = (path * WAVES[:, wave] for path, wave in zip(paths, (0, 1), strict=True))
    changes = [first, second, -2 * first, 5 + first, 0 * first]
    history = np.stack([normal(unit, 16) + change for unit, change in enumerate(changes)], axis=2)
    found = alike_in_development(history)
    expected = np.zeros((5, 5))
    expected[np.ix_([0, 2, 3], [0, 2, 3])] = expected[1, 1] = 1
    assert np.allclose(found.similarity, expected, rtol=0, atol=1e-12)
    assert found.groups == [[0, 2, 3]]
    assert found.effective == pytest.approx(16 / (9 + 1))
    assert sorted(found.order.tolist()) == [0, 1, 2, 3, 4]
    places = sorted(found.order.tolist().index(unit) for unit in (0, 2, 3))
    assert places[2] - places[0] == 2  # side by side in the drawing


def test_development_is_the_cosine_of_stacked_changes() -> None:
    history = normal(2, 4, 10, 6).cumsum(0)
    stacked = [
        np.concatenate([step - step.mean(0) for step in history[1:] - history[:-1]])[:, unit] for unit in range(6)
    ]
    cosine = stacked[1] @ stacked[4] / np.linalg.norm(stacked[1]) / np.linalg.norm(stacked[4])
    assert alike_in_development(history).similarity[1, 4] == pytest.approx(abs(cosine))


def test_development_at_other_times_is_not_alike() -> None:
    """Same end, same direction; one in the first half of training, one in the second."""
    early, late = (np.array(path)[:, None] * WAVES[:, 0] for path in ([0, 1, 1], [0, 0, 1]))
    assert alike_in_development(np.stack([early, late], axis=2)).similarity[0, 1] == 0


def test_a_group_needs_likeness_on_average() -> None:
    """Similarities 0.8, 0.8 and 0.28: a chain, of which average linkage keeps a pair alone."""
    middle, side = WAVES[:, 0], WAVES[:, 1]
    end = np.stack([0.8 * middle + 0.6 * side, middle, 0.8 * middle - 0.6 * side], axis=1)
    groups = alike_in_development(np.stack([0 * end, end]), threshold=0.75).groups
    assert [len(group) for group in groups] == [2]


def test_rounding_is_no_development() -> None:
    values = np.float32(1000) + normal(3, 16, 2).astype(np.float32)
    rounded = np.where(WAVES[:, :2] > 0, np.nextafter(values, np.float32(2000)), values)
    assert not alike_in_development(np.stack([values, rounded, values])).similarity.any()
    assert alike_in_development(np.stack([values, values + 0.1 * WAVES[:, :2]])).effective == pytest.approx(2)


def test_nothing_develops() -> None:
    found = alike_in_development(np.ones((3, 4, 2)))
    assert (found.groups, found.effective) == ([], 0.0)
    assert not found.similarity.any()


def test_mistakes_are_said() -> None:
    for threshold in (0.0, 1.5):
        with pytest.raises(UserError, match="in \\(0, 1\\]"):
            duplicates(WAVES, threshold)
        with pytest.raises(UserError, match="in \\(0, 1\\]"):
            alike_in_development(normal(0, 2, 4, 2), threshold)
    for history in (WAVES, WAVES[None], np.full((2, 4, 2), np.nan)):
        with pytest.raises(UserError, match="at least 2 checkpoints"):
            alike_in_development(history)
