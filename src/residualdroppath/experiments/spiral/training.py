"""The training of one spiral network, with the library as its users would call it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.residual_drop_path import ResidualDropPath
from ...errors import UserError
from ...training.learning_rate import learning_rate
from ...training.optimizer import parameter_groups
from ...training.recipe import Method
from ...training.runtime import derived_seed
from .config import SpiralConfig
from .data import Points
from .network import SpiralNetwork, make_network

OnIteration = Callable[[SpiralNetwork, int], None]


def train_network(
    config: SpiralConfig,
    method: Method,
    seed: int,
    points: Points,
    on_iteration: OnIteration = lambda network, iteration: None,
) -> SpiralNetwork:
    """Train by `method`; `on_iteration(network, iteration)` is called before the first and after every iteration.

    Initialisation and batches depend on the seed alone, so methods can be compared pair by pair. All randomness is
    explicit: the same arguments give the same network, bit for bit at the same number of threads.
    """
    network = make_network(config, derived_seed(seed, "spiral network"))
    rdp = None
    if method != "plain":
        rdp = ResidualDropPath(
            network,
            config.drop_path_rate,
            rate_over_depth=config.rate_over_depth,
            freeze=config.freeze,
            schedule=(1, 0) if method == "drop_path" else (1, 1),
            seed=seed,
        )
    optimizer = torch.optim.AdamW(parameter_groups(network, config.weight_decay), lr=config.lr, fused=True)
    network.train()
    on_iteration(network, 0)
    for iteration, rows in enumerate(_batches(config, seed), 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.lr, config.warmup, iteration, config.iterations)
        loss = F.cross_entropy(network(points.inputs[rows]), points.labels[rows])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if rdp is not None:
            rdp.step()
        on_iteration(network, iteration)
    if not math.isfinite(evaluate(network, points)[0]):
        raise UserError(f"The loss of {method}, seed {seed}, is not finite; try a lower `lr` (now {config.lr:g}).")
    if rdp is not None:
        rdp.remove()
    return network.eval()


@torch.no_grad()
def evaluate(network: nn.Module, points: Points) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy of the deployed network."""
    training = network.training
    logits = network.eval()(points.inputs)
    network.train(training)
    accuracy = (logits.argmax(1) == points.labels).double().mean()
    return float(F.cross_entropy(logits, points.labels)), float(accuracy)


def power_law(iterations: int, count: int) -> list[int]:
    """Iterations at which a training is recorded: densely at first, 0 and the last included; at most `count` times."""
    # Half an entry per doubling would leave nothing for the end of training: a power law lies between.
    steps = np.linspace(0, 1, count) ** 2.5 * iterations
    return sorted({round(float(step)) for step in steps})


def _batches(config: SpiralConfig, seed: int) -> Iterator[Tensor]:
    """Indices of each iteration's points: whole passes in a random order, a last part of a pass left out."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "spiral batches"))
    batches: list[Tensor] = []
    for _ in range(config.iterations):
        if not batches:
            order = torch.randperm(config.samples, generator=generator)
            batches = [rows for rows in order.split(config.batch_size) if len(rows) == config.batch_size][::-1]
        yield batches.pop()
