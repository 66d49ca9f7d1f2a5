"""Which units, of one layer and of layers far apart, change alike over training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...analysis.relations import alike_in_development
from .config import SpiralConfig
from .data import grid
from .features import look_at
from .network import SpiralNetwork
from .training import power_law

CHECKPOINTS = 12
SIDE = 24  # of the lattice; coarser than what is drawn, for it is kept at all checkpoints
ALIKE = 0.8  # |cosine| of two developments, from which on they are one group


@dataclass
class History:
    """The streams at `iterations`, over the same lattice; an `OnIteration` of `train_network`."""

    iterations: list[int]
    streams: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, config: SpiralConfig) -> History:
        return cls(power_law(config.iterations, CHECKPOINTS))

    def __call__(self, network: SpiralNetwork, iteration: int) -> None:
        if iteration in self.iterations:
            self.streams.append(look_at(network, grid(SIDE)).streams)


@dataclass(frozen=True)
class Developments:
    """What a history says, as plain numbers (`scalars`, `profiles`, `matrices`), and `groups` int16[L + 1, D]: the
    number of each unit's group, 1 the largest, 0 for a unit that develops like no other."""

    scalars: dict[str, float]
    profiles: dict[str, Any]
    matrices: dict[str, np.ndarray]
    groups: np.ndarray


def developments(history: History) -> Developments:
    """All units of all layers side by side, then each layer alone (`analysis.relations.alike_in_development`)."""
    streams = np.stack(history.streams)  # [T, L + 1, N, D]
    times, layers, points, units = streams.shape
    found = alike_in_development(streams.transpose(0, 2, 1, 3).reshape(times, points, layers * units), ALIKE)
    similarity = found.similarity.copy()
    np.fill_diagonal(similarity, 0.0)  # a unit's likeness to itself says nothing
    closest = similarity.reshape(layers, units, layers, units).max(3).mean(1)
    groups = np.zeros(layers * units, dtype=np.int16)
    for number, members in enumerate(found.groups, 1):
        groups[members] = number
    return Developments(
        {"developments": found.effective, "development_groups": len(found.groups)},
        {"developments": [alike_in_development(streams[:, layer], ALIKE).effective for layer in range(layers)]},
        {"development": closest},
        groups.reshape(layers, units),
    )
