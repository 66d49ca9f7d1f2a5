"""The features of a spiral network: what every unit of every layer says over a set of points."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...core.residual_drop_path import ResidualDropPath
from ...core.unit import Action, Junction


@dataclass(frozen=True)
class Features:
    """`streams` float32[L + 1, N, D]: the stream before the first add, then after each; `branches` float32[L, N, D]."""

    streams: np.ndarray
    branches: np.ndarray


@torch.no_grad()
def look_at(network: nn.Module, inputs: Tensor) -> Features:
    """Run a copy of the network in evaluation over `inputs`, and keep what passes each residual add."""
    network = copy.deepcopy(network).eval()  # a copy is a plain model, also in the midst of a training
    rdp = ResidualDropPath(network, 0.0)
    streams: list[Tensor] = []
    branches: list[Tensor] = []

    def note(junction: Junction, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        if not streams:
            streams.append(shortcut)
        branches.append(junction.run(*inputs))
        streams.append(junction.merge(shortcut, branches[-1]))
        return streams[-1]

    actions: list[Action | None] = [note] * len(rdp.branches)
    with rdp.acting(actions, in_evaluation=True):
        network(inputs)
    return Features(torch.stack(streams).numpy(), torch.stack(branches).numpy())


def as_maps(streams: np.ndarray) -> np.ndarray:
    """Streams float[L, size * size, D] over a lattice as pictures, uint8[L, D, size, size], the first row on top.

    Each unit is centred and divided by the 99th percentile of its absolute values: 128 is its mean, 1 and 255 are
    the ends. A correlation does not see either, so what looks alike (or like a negative) is alike.
    """
    layers, points, units = streams.shape
    size = round(points**0.5)
    centred = streams - streams.mean(1, keepdims=True)
    scale = np.percentile(np.abs(centred), 99, axis=1, keepdims=True)
    scaled = np.clip(centred / np.where(scale > 1e-12, scale, np.inf), -1, 1)
    pictures = np.round(128 + 127 * scaled).astype(np.uint8)
    return pictures.transpose(0, 2, 1).reshape(layers, units, size, size)[:, :, ::-1]
