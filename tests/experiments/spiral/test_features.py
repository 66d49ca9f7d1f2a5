"""Networks, what passes their adds, and how units become pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from residualdroppath import ResidualDropPath
from residualdroppath.experiments.spiral.config import SpiralConfig
from residualdroppath.experiments.spiral.data import grid
from residualdroppath.experiments.spiral.features import as_maps, look_at
from residualdroppath.experiments.spiral.network import Block, make_network


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_streams_and_branches_are_those_of_a_forward_by_hand(tiny: SpiralConfig, norm: str) -> None:
    network: Any = make_network(tiny.model_copy(update={"norm": norm}), 0)
    inputs = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    network.train()(inputs)  # running statistics of their own
    found = look_at(network, inputs)
    assert network.training and found.streams.shape == (5, 20, 8) and found.branches.shape == (4, 20, 8)
    network.eval()
    with torch.no_grad():
        x = network.stem(inputs)
        assert np.array_equal(found.streams[0], x.numpy())
        for index, block in enumerate(network.blocks):
            assert isinstance(block, Block)
            first, first_norm, _, second, second_norm = block.branch
            branch = second_norm(second(first_norm(first(x)).relu()))
            assert np.array_equal(found.branches[index], branch.numpy())
            x = (x + branch).relu()
            assert np.array_equal(found.streams[index + 1], x.numpy())
        torch.testing.assert_close(network.head(x), network(inputs))


def test_looking_leaves_a_network_in_training_alone(tiny: SpiralConfig) -> None:
    network = make_network(tiny, 0)
    rdp = ResidualDropPath(network, 0.5)
    assert len(rdp.branches) == tiny.depth
    flags = [parameter.requires_grad for parameter in network.parameters()]
    look_at(network, grid(4))
    assert rdp.iteration == 0 and flags == [parameter.requires_grad for parameter in network.parameters()]


def test_networks_come_from_their_seed_alone(tiny: SpiralConfig) -> None:
    state = torch.get_rng_state()
    one, same, other = (make_network(tiny, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.stem.weight, same.stem.weight) and not torch.equal(one.stem.weight, other.stem.weight)


def test_maps_have_y_upwards_and_one_scale_per_unit() -> None:
    x, y = grid(9).numpy().astype(float).T
    maps = as_maps(np.stack([x, 100 + 1000 * y, -y, np.full(81, 3.0)], 1)[None])
    assert maps.shape == (1, 4, 9, 9) and maps.dtype == np.uint8
    across, up, down, constant = maps[0]
    assert across[0, 0] == 1 and across[0, -1] == 255 and (across[:, 4] == 128).all()
    assert (up[0] == 255).all() and (up[-1] == 1).all()
    assert np.abs(up.astype(int) + down - 256).max() <= 1
    assert (constant == 128).all()
