"""Layer deletion of Veit et al. (2016, arXiv 1605.06431): answers of a network without some branches, or reordered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau
from torch import Tensor, nn

from ..core.residual_drop_path import ResidualDropPath
from ..core.running.actions import drop
from ..errors import UserError
from .capture import logits_of

# Enters a deletion or a new order; the network is itself again outside of it.
Alteration = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Group:
    """Blocks that could stand in each other's place: children `keys` of `parent`, in order of execution."""

    parent: str
    keys: tuple[str, ...]


@contextmanager
def without(rdp: ResidualDropPath, indices: Iterable[int]) -> Iterator[None]:
    """The network without these branches (places in `rdp.branches`): their adds return the shortcut."""
    removed, count = set(indices), len(rdp.branches)
    if unknown := sorted(removed - set(range(count))):
        raise UserError(f"`indices` must be in [0, {count - 1}], the branches of the model, got {unknown}.")
    with rdp.acting([drop if index in removed else None for index in range(count)], in_evaluation=True):
        yield


def exchangeable(model: nn.Module, blocks: Sequence[nn.Module]) -> list[Group]:
    """Groups of two or more consecutive blocks with one parent, and of one class, look and shape of parameters."""
    paths = {module: path for path, module in model.named_modules()}
    groups: list[list[tuple[str, str]]] = []
    last: tuple[object, ...] | None = None
    for block in dict.fromkeys(blocks):
        parent, _, key = paths[block].rpartition(".")
        shapes = tuple((name, tuple(value.shape)) for name, value in block.state_dict().items())
        kind = (parent, type(block), repr(block), shapes)
        if kind != last:
            groups.append([])
        groups[-1].append((parent, key))
        last = kind
    return [Group(group[0][0], tuple(key for _, key in group)) for group in groups if len(group) > 1]


@contextmanager
def reordered(model: nn.Module, group: Group, order: Sequence[int]) -> Iterator[None]:
    """The blocks of a group in another order: place i runs block `order[i]`. Weights and names are as before after it.

    Whole blocks are moved, with what follows their adds.
    """
    if sorted(order) != list(range(len(group.keys))):
        raise UserError(f"`order` must be a permutation of 0 to {len(group.keys) - 1}, got {list(order)}.")
    children = model.get_submodule(group.parent)._modules
    before = [children[key] for key in group.keys]
    for key, place in zip(group.keys, order, strict=True):
        children[key] = before[place]
    try:
        yield
    finally:
        for key, block in zip(group.keys, before, strict=True):
            children[key] = block


@contextmanager
def all_reordered(model: nn.Module, groups: Sequence[Group], orders: Sequence[Sequence[int]]) -> Iterator[None]:
    """`reordered` in several groups at once."""
    if not groups:
        yield
        return
    with reordered(model, groups[0], orders[0]), all_reordered(model, groups[1:], orders[1:]):
        yield


@torch.no_grad()
def answers(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    alterations: Sequence[Alteration],
    advance: Callable[[], None] = lambda: None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Classes that the network answers under each alteration, int64[alterations, N], and the labels, int64[N].

    Each batch is read once and goes through all alterations; `advance` is called after each forward.
    """
    was_training = model.training
    model.eval()
    found: list[NDArray[np.int64]] = []
    labels: list[NDArray[np.int64]] = []
    try:
        for images, given in batches:
            rows = []
            for alteration in alterations:
                with alteration():
                    rows.append(logits_of(model(images)).argmax(1).cpu().numpy())
                advance()
            found.append(np.stack(rows))
            labels.append(given.cpu().numpy())
    finally:
        model.train(was_training)
    if not found:
        raise UserError("`batches` must hold at least one batch, got none; take more samples.")
    return np.concatenate(found, axis=1), np.concatenate(labels)


def random_sets(count: int, sizes: Sequence[int], repeats: int, seed: int = 0) -> list[tuple[int, ...]]:
    """`repeats` random sets of branches for each size; fewer where there are not so many. Sorted, none twice."""
    generator = np.random.default_rng(seed)
    sets: list[tuple[int, ...]] = []
    for size in sizes:
        if not 1 <= size <= count:
            raise UserError(f"`sizes` must be in [1, {count}], the number of branches, got {size}.")
        own: dict[tuple[int, ...], None] = {}
        for _ in range(20 * repeats):
            own[tuple(sorted(generator.choice(count, size, replace=False).tolist()))] = None
            if len(own) == repeats:
                break
        sets += own
    return sets


def disorder(orders: Sequence[Sequence[int]]) -> float:
    """Kendall's tau with the order as trained, over the pairs of all groups together: in [-1, 1], 1 as trained."""
    pairs = [len(order) * (len(order) - 1) // 2 for order in orders]
    taus = [float(kendalltau(range(len(order)), order)[0]) for order in orders]  # pyright: ignore[reportArgumentType]
    return float(np.average(taus, weights=pairs))
