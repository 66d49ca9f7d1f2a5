"""The features of a spiral network: what every unit of every layer says over a set of points."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .network import Block, SpiralNetwork


@dataclass(frozen=True)
class Features:
    """`streams` float32[L + 1, N, D]: what the stem and then each block hands on; `branches` float32[L, N, D]."""

    streams: np.ndarray
    branches: np.ndarray


@torch.no_grad()
def look_at(network: SpiralNetwork, inputs: Tensor) -> Features:
    """Run a copy of the network in evaluation over `inputs`, and keep the stream between blocks and every branch."""
    network = copy.deepcopy(network).eval()  # a copy is a plain model, also in the midst of a training
    streams, branches = [x := network.stem(inputs)], []
    for block in network.blocks:
        assert isinstance(block, Block)
        block.branch.register_forward_hook(lambda module, given, output: branches.append(output))
        streams.append(x := block(x))
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
