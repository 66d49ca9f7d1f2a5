"""Deletion and reordering of one network's branches, in one pass over the images."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from ...analysis.capture import Features
from ...analysis.deletion import (
    Alteration,
    all_reordered,
    answers,
    disorder,
    exchangeable,
    random_sets,
    reordered,
    without,
)  # fmt: skip
from ..progress import OnProgress
from .config import AnalyzeConfig
from .result import Result
from .sample import Sample
from .targets import Network


def measure_deletion(
    result: Result, network: Network, features: Features, sample: Sample, config: AnalyzeConfig, device: torch.device,
    on_progress: OnProgress,
) -> None:  # fmt: skip
    """Put `deletion` and `reordering` into the result: accuracies, and `kept`, the share of the whole network's
    answers that stay, which needs no labels."""
    rdp, model = network.rdp, network.model
    count = len(features.indices)
    deletes, reorders = "deletion" in config.measures, "reordering" in config.measures
    sizes = set_sizes(count)
    singles = [(index,) for index in range(count)] if deletes else []
    sets = random_sets(count, sizes, config.sets, config.seed) if deletes else []
    groups = exchangeable(model, [rdp.branches[index].block for index in features.indices]) if reorders else []
    swaps = [(group, place) for group in groups for place in range(len(group.keys) - 1)]
    orders = random_orders([len(group.keys) for group in groups], 2 * config.sets, config.seed) if groups else []

    alterations: list[Alteration] = [partial(without, rdp, ())]
    alterations += [partial(without, rdp, [features.indices[index] for index in chosen]) for chosen in singles + sets]
    alterations += [partial(reordered, model, group, swapped(len(group.keys), place)) for group, place in swaps]
    alterations += [partial(all_reordered, model, groups, order) for order in orders]

    total, done = sample.num_batches * len(alterations), 0

    def advance() -> None:
        nonlocal done
        done += 1
        on_progress("deletion and reordering", done, total)

    found, labels = answers(model, sample.batches(network, device), alterations, advance)
    kept = (found == found[0]).mean(1)
    accuracy = (found == labels).mean(1) if network.no_accuracy is None else np.full(len(found), np.nan)
    rows = iter(zip(accuracy[1:], kept[1:], strict=True))

    def take(length: int) -> dict[str, list[float]]:
        pairs = [next(rows) for _ in range(length)]
        return {"accuracy": [pair[0] for pair in pairs], "kept": [pair[1] for pair in pairs]}

    whole = {"accuracy": accuracy[0], "samples": len(labels)}
    if deletes:
        single, several = take(len(singles)), take(len(sets))
        result.measures["deletion"] = {
            "whole": whole, "single": single, "sets": [_of_size(size, sets, several) for size in sizes],
        }  # fmt: skip
    if reorders and not groups:
        result.skipped["reordering"] = "no two neighbouring blocks have the same shape"
    elif reorders:
        names = [f"{_path(group.parent, place)} and {_path(group.parent, place, 1)}" for group, place in
                 ((group, (group.keys, place)) for group, place in swaps)]  # fmt: skip
        result.measures["reordering"] = {
            "whole": whole,
            "groups": [[_join(group.parent, key) for key in group.keys] for group in groups],
            "swaps": {"names": names, **take(len(swaps))},
            "random": {"tau": [disorder(order) for order in orders], **take(len(orders))},
        }


def set_sizes(count: int) -> list[int]:
    """How many branches random sets hold: a few sizes from 2 to all."""
    return sorted({size for size in (2, 3, count // 4, count // 2, 3 * count // 4, count) if 2 <= size <= count})


def swapped(count: int, place: int) -> list[int]:
    """The order of `count` blocks with those at `place` and `place + 1` swapped."""
    order = list(range(count))
    order[place : place + 2] = order[place + 1], order[place]
    return order


def random_orders(lengths: list[int], repeats: int, seed: int) -> list[list[list[int]]]:
    """An order for each group, `repeats` times, from a little shuffled to thoroughly; never as trained, none twice,
    so fewer where there are not so many."""
    generator = np.random.default_rng([seed, 1])
    trained = [list(range(length)) for length in lengths]
    orders: list[list[list[int]]] = []
    for attempt in range(20 * repeats):
        strength = 2 * (attempt % repeats + 1) / repeats
        order = [np.argsort(np.arange(n) + strength * n * generator.random(n)).tolist() for n in lengths]
        if order != trained and order not in orders:
            orders.append(order)
        if len(orders) == repeats:
            break
    return orders


def _of_size(size: int, sets: list[tuple[int, ...]], found: dict[str, list[float]]) -> dict[str, Any]:
    """Mean and spread over the sets of one size."""
    own = [place for place, chosen in enumerate(sets) if len(chosen) == size]
    row: dict[str, Any] = {"size": size, "count": len(own)}
    for name, values in found.items():
        picked = np.array([values[place] for place in own])
        row[name] = {"mean": picked.mean(), "sd": picked.std(ddof=1) if len(own) > 1 else 0.0}
    return row


def _join(parent: str, key: str) -> str:
    return f"{parent}.{key}" if parent else key


def _path(parent: str, at: tuple[tuple[str, ...], int], by: int = 0) -> str:
    return _join(parent, at[0][at[1] + by])
