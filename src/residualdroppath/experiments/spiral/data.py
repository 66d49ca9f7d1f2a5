"""Points on the arms of a spiral, and the square around it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...training.runtime import derived_seed
from .config import SpiralConfig

HALF_SIDE = 1.2  # of the square; the arms end at radius 1


@dataclass(frozen=True)
class Points:
    """`inputs` float32[N, 2], `labels` int64[N] (the arm), `positions` float32[N] along the arm, in [0, 1]."""

    inputs: Tensor
    labels: Tensor
    positions: Tensor


@dataclass(frozen=True)
class SpiralData:
    """Three parts drawn independently, and `grid`, float32[size * size, 2], row by row from the lower left."""

    train: Points
    validation: Points
    test: Points
    grid: Tensor


def make_data(config: SpiralConfig) -> SpiralData:
    """The data of a configuration: a pure function of it."""
    sizes = {"train": config.samples, "validation": max(1, config.samples // 2), "test": config.samples}
    parts = {
        name: spiral(size, config.arms, config.turns, config.noise, derived_seed(config.data_seed, f"spiral {name}"))
        for name, size in sizes.items()
    }
    return SpiralData(**parts, grid=grid(config.grid))


def spiral(samples: int, arms: int, turns: float, noise: float, seed: int) -> Points:
    """`samples` points, the arms taken in turn, evenly dense: radius = position = sqrt(U), angle = position * turns.

    Normal noise of standard deviation `noise` is added to both coordinates.
    """
    random = np.random.default_rng(seed)
    labels = np.arange(samples) % arms
    positions = np.sqrt(random.uniform(size=samples))
    angles = 2 * math.pi * (turns * positions + labels / arms)
    inputs = positions[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    inputs = inputs + noise * random.standard_normal((samples, 2))
    return Points(torch.from_numpy(inputs).float(), torch.from_numpy(labels), torch.from_numpy(positions).float())


def grid(size: int) -> Tensor:
    """A square lattice over [-1.2, 1.2] x [-1.2, 1.2], float32[size * size, 2]; x changes fastest."""
    steps = torch.linspace(-HALF_SIDE, HALF_SIDE, size)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)
