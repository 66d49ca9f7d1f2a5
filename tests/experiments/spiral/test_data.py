"""The points of the spiral, and the square around it."""

from __future__ import annotations

import math

import pytest
import torch

from residualdroppath.experiments.spiral.config import SpiralConfig
from residualdroppath.experiments.spiral.data import HALF_SIDE, grid, make_data, spiral


@pytest.mark.parametrize("arms", [2, 3])
def test_without_noise_points_lie_on_their_arm(arms: int) -> None:
    points = spiral(300, arms, turns=1.5, noise=0.0, seed=0)
    x, y = points.inputs.double().T
    torch.testing.assert_close(torch.hypot(x, y), points.positions.double(), atol=1e-6, rtol=0)
    turned = torch.atan2(y, x) / (2 * math.pi) - 1.5 * points.positions - points.labels / arms
    assert float((turned - turned.round()).abs().max()) < 1e-4  # whole turns
    assert points.labels.bincount().tolist() == [300 // arms] * arms


def test_noise_has_its_deviation_and_positions_are_even_in_area() -> None:
    still, noisy = (spiral(20_000, 2, 2.0, noise, seed=3) for noise in (0.0, 0.1))
    assert float((noisy.inputs - still.inputs).std()) == pytest.approx(0.1, rel=0.02)
    assert float((still.positions < 0.5).double().mean()) == pytest.approx(0.25, abs=0.01)


def test_parts_are_drawn_apart_and_again_the_same(tiny: SpiralConfig) -> None:
    data, again = make_data(tiny), make_data(tiny)
    assert [len(part.inputs) for part in (data.train, data.validation, data.test)] == [64, 32, 64]
    assert torch.equal(data.train.inputs, again.train.inputs)
    assert not torch.isclose(data.train.positions, data.test.positions).any()
    other = make_data(tiny.model_copy(update={"data_seed": 1}))
    assert not torch.isclose(data.train.positions, other.train.positions).any()


def test_grid_runs_row_by_row_from_the_lower_left() -> None:
    points = grid(3)
    side = HALF_SIDE
    assert points[0].tolist() == pytest.approx([-side, -side])
    assert points[1].tolist() == pytest.approx([0, -side])
    assert points[-1].tolist() == pytest.approx([side, side])
