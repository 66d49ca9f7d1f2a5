"""What one network looks like, as arrays: units over the grid, decisions, and both over training."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from ...analysis.units import closest, max_correlations, recreated
from .data import SpiralData, grid
from .features import as_maps, look_at
from .measures import LOST, SAME
from .network import SpiralNetwork

FRAME_SIDE = 20  # of a unit's map in the animation


def portrait(network: SpiralNetwork, data: SpiralData) -> dict[str, np.ndarray]:
    """Arrays for unit grid, regions and page.

    `maps` uint8[L + 1, D, size, size]; `decisions` float32[arms, size, size], probabilities, the first row on top;
    `sources` int64[count, 4]: (layer, unit, from layer, from unit) of recreated units; `reuse` uint8[L + 1, L + 1, D],
    the maximal r of unit u of layer l with units of layer k in percent at [l, k, u] for k < l, 0 elsewhere.
    """
    layers = list(look_at(network, data.grid).streams.astype(np.float64))
    pairs = closest(layers)
    sources = np.asarray(recreated(pairs, SAME, LOST).source, dtype=np.int64).reshape(-1, 4)
    correlations = np.zeros((len(layers), len(layers), layers[0].shape[1]))
    for layer, earlier in enumerate(max_correlations(pairs)):
        for other in range(layer):
            correlations[layer, other] = earlier[other]
    return {
        "maps": as_maps(np.stack(layers)),
        "decisions": decisions(network, data.grid),
        "sources": sources,
        "reuse": np.round(100 * correlations).astype(np.uint8),
    }


@torch.no_grad()
def decisions(network: nn.Module, points: torch.Tensor) -> np.ndarray:
    """Probabilities of the arms over a lattice, float32[arms, size, size], the first row on top."""
    probabilities = copy.deepcopy(network).eval()(points).softmax(1).numpy()
    size = round(len(points) ** 0.5)
    return probabilities.T.reshape(-1, size, size)[:, ::-1].astype(np.float32)


@dataclass
class Frames:
    """Pictures over training, taken at `iterations`; an `OnIteration` of `train_network`."""

    iterations: list[int]
    maps: list[np.ndarray] = field(default_factory=list)
    decided: list[np.ndarray] = field(default_factory=list)

    def __call__(self, network: SpiralNetwork, iteration: int) -> None:
        if iteration in self.iterations:
            self.maps.append(as_maps(look_at(network, grid(FRAME_SIDE)).streams.astype(np.float64)))
            self.decided.append(np.round(255 * decisions(network, grid(48))[0]).astype(np.uint8))

    def arrays(self) -> dict[str, np.ndarray]:
        """`film_maps` uint8[T, L + 1, D, side, side], `film_decisions` uint8[T, 48, 48] of the first arm."""
        return {
            "film_iterations": np.asarray(self.iterations),
            "film_maps": np.stack(self.maps),
            "film_decisions": np.stack(self.decided),
        }
