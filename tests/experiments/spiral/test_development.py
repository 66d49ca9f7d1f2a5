"""Who develops alike: on histories where it is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from residualdroppath.experiments.spiral.config import SpiralConfig
from residualdroppath.experiments.spiral.data import make_data
from residualdroppath.experiments.spiral.development import CHECKPOINTS, History, developments
from residualdroppath.experiments.spiral.folder import SpiralFolder
from residualdroppath.experiments.spiral.training import train_network


def test_units_of_far_layers_that_change_together_are_one_group() -> None:
    generator = np.random.default_rng(0)
    times, points = 4, 200
    alone = generator.normal(size=(times, 3, points, 2)).cumsum(0)
    shared = generator.normal(size=(times, points)).cumsum(0)
    alone[:, 0, :, 1] = shared
    alone[:, 2, :, 0] = 5 - 3 * shared  # the other way round, larger, from another start
    found = developments(History(list(range(times)), list(alone)))
    assert found.groups.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert found.scalars["development_groups"] == 1
    assert found.scalars["developments"] == pytest.approx(36 / (4 * 1 + 4), rel=0.1)  # eigenvalues 2, 1, 1, 1, 1
    assert found.profiles["developments"] == pytest.approx([2, 2, 2], rel=0.1)
    matrix = found.matrices["development"]
    assert matrix[0, 2] == pytest.approx(0.55, abs=0.1) and matrix[2, 0] == pytest.approx(0.55, abs=0.1)
    assert matrix[0, 1] < 0.2 and np.diagonal(matrix).max() < 0.2  # a unit's likeness to itself is left out


def test_history_looks_as_often_as_it_should(tiny: SpiralConfig) -> None:
    history = History.of(tiny)
    train_network(tiny, "plain", 0, make_data(tiny).train, history)
    assert 2 <= len(history.streams) == len(history.iterations) <= CHECKPOINTS
    assert {streams.shape[0::2] for streams in history.streams} == {(tiny.depth + 1, tiny.width)}
    assert not np.array_equal(history.streams[0], history.streams[-1])


def test_a_run_keeps_developments_of_what_was_trained(tiny_run: tuple[dict[str, Any], Path]) -> None:
    record, out = tiny_run
    for name, row in record["rows"].items():
        trained = name != "untrained"
        assert ("developments" in row["scalars"]) == ("development" in row["matrices"]) == trained
        assert ("groups" in SpiralFolder(out).pictures(name)) == trained
    assert len(record["rows"]["plain"]["scalars"]["developments"]["values"]) == 2
