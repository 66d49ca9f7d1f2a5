"""Deletion and reordering, against networks cut and reordered by hand."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from residualdroppath import ResidualDropPath
from residualdroppath.analysis.deletion import (
    Group,
    all_reordered,
    answers,
    disorder,
    exchangeable,
    random_sets,
    reordered,
    without,
)
from residualdroppath.errors import UserError
from residualdroppath.models.small_resnet import SmallResNet

from .test_capture import Network, batches, made


def resnet() -> SmallResNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallResNet(20, 4, in_channels=1, num_classes=3).eval()


def cut(network: Network, indices: list[int]) -> Network:
    """A copy whose branches at `indices` add zeros."""
    own = copy.deepcopy(network)
    for index in indices:
        for parameter in own.blocks[index].parameters():
            nn.init.zeros_(parameter)
    return own


@pytest.mark.parametrize("indices", [[], [0], [2], [0, 1], [0, 1, 2]])
@torch.no_grad()
def test_without_is_a_network_whose_branches_add_nothing(indices: list[int]) -> None:
    network, images = made(), batches()[0][0]
    rdp, plain, expected = ResidualDropPath(network, 0.0), network(images), cut(network, indices)(images)
    with without(rdp, indices):
        torch.testing.assert_close(network(images), expected)
    assert torch.equal(network(images), plain)
    if indices:
        assert not torch.allclose(plain, expected)


def test_without_unknown_branches() -> None:
    with pytest.raises(UserError, match=r"\[0, 2\]"), without(ResidualDropPath(made(), 0.0), [3]):
        pass


def test_exchangeable_blocks_are_neighbours_of_one_shape() -> None:
    network = resnet()
    groups = exchangeable(network, list(network.blocks))
    assert groups == [
        Group("blocks", ("0", "1", "2")),
        Group("blocks", ("4", "5")),  # the first of a stage projects
        Group("blocks", ("7", "8")),
    ]
    twice = [block for block in network.blocks for _ in range(2)]  # two branches of a block
    assert exchangeable(network, twice) == groups


@torch.no_grad()
def test_reordered_is_a_network_of_reordered_blocks() -> None:
    network, images = made(), batches()[0][0]
    plain = network(images)
    by_hand = copy.deepcopy(network)
    by_hand.blocks = nn.Sequential(*(by_hand.blocks[index] for index in (2, 0, 1)))
    with reordered(network, Group("blocks", ("0", "1", "2")), [2, 0, 1]):
        assert torch.equal(network(images), by_hand(images)) and not torch.equal(network(images), plain)
    assert torch.equal(network(images), plain)
    with pytest.raises(RuntimeError), reordered(network, Group("blocks", ("0", "1", "2")), [2, 0, 1]):
        raise RuntimeError
    assert torch.equal(network(images), plain)


@torch.no_grad()
def test_several_groups_at_once() -> None:
    network, images = resnet(), batches()[0][0].repeat(1, 1, 2, 2)
    groups = exchangeable(network, list(network.blocks))
    names = list(network.state_dict())
    orders = [[1, 2, 0], [1, 0], [0, 1]]
    own = copy.deepcopy(network)
    own.blocks = nn.Sequential(*(own.blocks[index] for index in (1, 2, 0, 3, 5, 4, 6, 7, 8)))
    with all_reordered(network, groups, orders):
        assert torch.equal(network(images), own(images))
    assert list(network.state_dict()) == names


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [1, 2, 3]])
def test_orders_that_are_none(order: list[int]) -> None:
    with pytest.raises(UserError, match="permutation"), reordered(made(), Group("blocks", ("0", "1", "2")), order):
        pass


@torch.no_grad()
def test_answers_of_each_lesion_over_all_batches() -> None:
    network, data = made(), batches()
    rdp, calls = ResidualDropPath(network, 0.0), []
    lesions = [partial(without, rdp, ()), partial(without, rdp, [0]), partial(without, rdp, [1, 2])]
    found, labels = answers(network, data, lesions, lambda: calls.append(1))
    images = torch.cat([images for images, _ in data])
    for row, indices in zip(found, ([], [0], [1, 2]), strict=True):
        assert row.tolist() == cut(network, indices)(images).argmax(1).tolist()
    assert labels.tolist() == torch.cat([own for _, own in data]).tolist() and len(calls) == 6
    with pytest.raises(UserError, match="at least one batch"):
        answers(network, [], lesions)


def test_answers_are_those_of_evaluation_mode() -> None:
    network = resnet().train()
    data = [(images.repeat(1, 1, 2, 2), labels) for images, labels in batches()]
    before = network.stem[1].running_mean.clone()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    answers(network, data, [partial(without, ResidualDropPath(network, 0.0), [1])])
    assert network.training and torch.equal(network.stem[1].running_mean, before)  # pyright: ignore[reportArgumentType]


def test_random_sets() -> None:
    sets = random_sets(6, [1, 3, 6], 4, seed=1)
    assert [len(own) for own in sets] == [1] * 4 + [3] * 4 + [6]  # there is one set of all
    assert len(set(sets)) == len(sets) and all(own == tuple(sorted(set(own))) and max(own) < 6 for own in sets)
    assert sets == random_sets(6, [1, 3, 6], 4, seed=1) != random_sets(6, [1, 3, 6], 4, seed=2)
    with pytest.raises(UserError, match="sizes"):
        random_sets(3, [4], 1)


def test_disorder_counts_pairs() -> None:
    assert disorder([[0, 1, 2]]) == 1.0 and disorder([[2, 1, 0]]) == -1.0
    assert disorder([[1, 0, 2]]) == pytest.approx(1 / 3)
    # Three pairs in order and one not: (3 - 1) / 4.
    assert disorder([[0, 1, 2], [1, 0]]) == pytest.approx(0.5)
    assert np.isfinite(disorder([[1, 0]]))
