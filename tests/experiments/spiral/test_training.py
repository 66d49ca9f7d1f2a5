"""The training of a spiral network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from residualdroppath.errors import UserError
from residualdroppath.experiments.spiral.config import SpiralConfig
from residualdroppath.experiments.spiral.data import make_data
from residualdroppath.experiments.spiral.training import evaluate, power_law, train_network

METHODS: Any = ("plain", "drop_path", "residual_drop_path")


@pytest.mark.parametrize("method", METHODS)
def test_the_same_arguments_give_the_same_network(tiny: SpiralConfig, method: Any) -> None:
    points = make_data(tiny).train
    one, same, other = (train_network(tiny, method, seed, points).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_methods_start_alike_and_end_apart(tiny: SpiralConfig) -> None:
    points, starts, ends = make_data(tiny).train, [], []
    for method in METHODS:

        def look(network: Any, iteration: int) -> None:
            if iteration == 0:
                starts.append(network.stem.weight.detach().clone())  # noqa: B023

        ends.append(train_network(tiny, method, 0, points, look).stem.weight)
    assert torch.equal(starts[0], starts[1]) and torch.equal(starts[0], starts[2])
    assert not any(torch.equal(ends[i], ends[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_it_learns(tiny: SpiralConfig) -> None:
    config = tiny.model_copy(update={"iterations": 150, "lr": 1e-2})
    data = make_data(config)
    for method in METHODS:
        assert evaluate(train_network(config, method, 0, data.train), data.test)[1] > 0.95


def test_evaluation_is_the_deployed_network(tiny: SpiralConfig) -> None:
    data = make_data(tiny)
    network = train_network(tiny, "residual_drop_path", 0, data.train)
    logits = network(data.test.inputs)
    loss, accuracy = evaluate(network.train(), data.test)
    assert network.training
    assert loss == pytest.approx(float(F.cross_entropy(logits, data.test.labels).detach()))
    assert accuracy == pytest.approx(float((logits.argmax(1) == data.test.labels).float().mean()))


def test_looks_begin_and_end_with_the_training() -> None:
    times = power_law(1000, 10)
    assert times[0] == 0 and times[-1] == 1000 and len(times) <= 10
    assert np.all(np.diff(times) > 0) and times[1] < 1000 / 9  # densely at first


def test_a_diverged_training_says_so(tiny: SpiralConfig) -> None:
    config = tiny.model_copy(update={"lr": 1e30})
    with pytest.raises(UserError, match="lr"):
        train_network(config, "plain", 0, make_data(config).train)
