"""The learning rate over training: a pure function of the iteration, but for `plateau`, which looks at accuracies."""

from __future__ import annotations

import math
from typing import Any

import torch

from .training_options import FactorOverTime


def learning_rate(
    largest: float,
    warmup: float,
    iteration: int,
    total_iterations: int,
    over_time: FactorOverTime = "cosine",
    *,
    min_lr: float = 0.0,
    power: float = 1.0,
    epoch: int = 0,
    decay_epochs: tuple[int, ...] = (),
    decay_rate: float = 0.1,
) -> float:
    """Of iteration 1, 2, ..., `total_iterations`: linear from 0 over the part `warmup`, then as `over_time` has it.

    cosine, poly    half a cosine, or a power of the part that is left, down to `min_lr`
    step            times `decay_rate` after each `decay_epochs[0]` epochs; `epoch` counts whole ones
    multistep       times `decay_rate` after each of `decay_epochs`
    constant, plateau    `largest`; `Plateau` has the factor of the latter
    """
    progress = iteration / (total_iterations + 1)
    if progress < warmup:
        return largest * progress / warmup
    if over_time == "step":
        return largest * decay_rate ** (epoch // decay_epochs[0])
    if over_time == "multistep":
        return largest * decay_rate ** sum(epoch >= end for end in decay_epochs)
    if over_time in ("constant", "plateau"):
        return largest
    done = (progress - warmup) / (1 - warmup)
    if over_time == "poly":
        return min_lr + (largest - min_lr) * (1 - done) ** power
    return min_lr + (largest - min_lr) * 0.5 * (1 + math.cos(math.pi * done))


class Plateau:
    """A factor on the learning rate that falls when validation accuracy has not risen for some time.

    torch's `ReduceLROnPlateau`, on an optimizer of nothing whose learning rate is the factor.
    """

    def __init__(self, decay_rate: float, patience: int, smallest: float):
        self._holder = torch.optim.SGD([torch.zeros(())], lr=1.0)
        self._scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._holder, mode="max", factor=decay_rate, patience=patience, threshold=0.0, min_lr=smallest
        )

    @property
    def factor(self) -> float:
        return self._holder.param_groups[0]["lr"]

    def note(self, accuracy: float) -> None:
        self._scheduler.step(accuracy)

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._holder.param_groups[0]["lr"] = state["factor"]
        self._scheduler.load_state_dict(state["scheduler"])
