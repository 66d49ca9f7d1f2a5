"""What a trained network is still worth without some branches: chosen on validation data, random, and the worst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from ...analysis.deletion import answers, random_sets, without
from ...core.residual_drop_path import ResidualDropPath
from ...training.trainer import Trainer
from .measured import Batches, branches_of, first_images

VALIDATION_IMAGES = 1000  # that branches are chosen on, one after another
TEST_IMAGES = 5000
RANDOM_SETS = 8  # of each size
SELECTIONS = ("chosen", "random", "worst")


def elastic_depth(trainer: Trainer, seed: int = 0) -> dict[str, Any]:
    """Test accuracy of the trained network without 1 to half of its branches.

    `chosen`: taken out one by one, each time the one without which validation accuracy is highest; `worst`: lowest;
    `random`: the mean over sets. All are chosen before the test images are looked at.
    """
    with branches_of(trainer) as rdp:
        return _elastic_depth(trainer, rdp, seed)


def _elastic_depth(trainer: Trainer, rdp: ResidualDropPath, seed: int) -> dict[str, Any]:
    model, data = trainer.model, trainer.data
    validation = first_images(trainer, data.validation, VALIDATION_IMAGES)
    count = len(rdp.branches)
    sizes = range(1, count // 2 + 1)
    picked = {"chosen": _one_by_one(model, rdp, validation, max), "worst": _one_by_one(model, rdp, validation, min)}
    sets = random_sets(count, sizes, RANDOM_SETS, seed)
    wanted = [(), *(tuple(picked[how][:size]) for how in picked for size in sizes), *sets]
    test = first_images(trainer, data.test, TEST_IMAGES)
    accuracy = iter(_accuracies(model, rdp, test, wanted))
    found: dict[str, Any] = {"branches": count, "test_images": sum(len(labels) for _, labels in test)}
    found["whole"] = next(accuracy)
    names = [branch.name for branch in rdp.branches]
    for how, order in picked.items():
        found[how] = [next(accuracy) for _ in sizes]
        found[f"{how}_branches"] = [names[index] for index in order]
    by_size: dict[int, list[float]] = {size: [] for size in sizes}
    for chosen in sets:
        by_size[len(chosen)].append(next(accuracy))
    found["random"] = [float(np.mean(values)) for values in by_size.values()]
    return found


def _one_by_one(
    model: nn.Module, rdp: ResidualDropPath, batches: Batches, best: Callable[[Sequence[float]], float]
) -> list[int]:
    """Branches in the order in which they are taken out, half of them."""
    out: list[int] = []
    for _ in range(len(rdp.branches) // 2):
        left = [index for index in range(len(rdp.branches)) if index not in out]
        accuracies = _accuracies(model, rdp, batches, [(*out, index) for index in left])
        out.append(left[accuracies.index(best(accuracies))])
    return out


def _accuracies(
    model: nn.Module, rdp: ResidualDropPath, batches: Batches, sets: Sequence[tuple[int, ...]]
) -> list[float]:
    found, labels = answers(model, batches, [partial(without, rdp, indices) for indices in sets])
    return (found == labels).mean(1).tolist()
