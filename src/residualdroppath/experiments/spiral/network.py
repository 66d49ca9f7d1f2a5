"""The residual MLP: a linear stem, blocks of one linear layer each, a linear head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import SpiralConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class Block(nn.Module):
    """act(x + norm(W2 act(norm(W1 x)))): the basic block of He et al. 2016 (arXiv 1512.03385), linear layers in it."""

    def __init__(self, width: int, activation: str, norm: str):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Linear(width, width),
            _norm(norm, width),
            ACTIVATIONS[activation](),
            nn.Linear(width, width),
            _norm(norm, width),
        )
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.branch(x))


class SpiralNetwork(nn.Module):
    """float[batch, 2] to logits float[batch, classes], through `depth` blocks of `width` units.

    The paper's text says depth 32 and width 32, and no more: what a block holds is our choice. It is the block of
    the ResNets that the method is for; smoother ones (pre-activation, a single layer) hardly recreate a unit.
    """

    def __init__(self, depth: int, width: int, classes: int, activation: str = "relu", norm: str = "batch"):
        super().__init__()
        self.stem = nn.Linear(2, width)
        self.blocks = nn.Sequential(*[Block(width, activation, norm) for _ in range(depth)])
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


def make_network(config: SpiralConfig, seed: int) -> SpiralNetwork:
    """A freshly initialised network (PyTorch's own initialisation), without a trace on the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SpiralNetwork(config.depth, config.width, config.arms, config.activation, config.norm)


def _norm(name: str, width: int) -> nn.Module:
    if name == "none":
        return nn.Identity()
    return nn.LayerNorm(width) if name == "layer" else nn.BatchNorm1d(width)
