"""A network to be held to the contracts, and what is known of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from residualdroppath.core import residual_drop_path

from .by_hand import Gate
from .comparing import Inputs, computes_in_float32, flat_output


@dataclass
class Subject:
    """A network to be held to the contracts.

    `build` makes it in training mode, the same at every call; `inputs` makes keyword arguments of a forward, by seed.
    `branches` are written by hand: names in order of execution, each with the names of its parameters.
    `formula` is the forward by hand, every branch behind a gate. Without `strict`, as networks of libraries need,
    gradients are compared relative to the largest of the network (that of a bias before a norm is noise), and a branch
    may have none where all that reads it is dropped.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    branches: Mapping[str, set[str]] | None = None
    formula: Callable[[Any, Inputs, Gate], Any] | None = None
    strict: bool = True
    can_be_pickled: bool = False

    @cached_property
    def plain(self) -> nn.Module:
        """A network that never is under the method: untouched model, full network and twin in turn."""
        return self.build()

    @cached_property
    def tolerance(self) -> float:
        return 1e-4 if computes_in_float32(copy.deepcopy(self.plain), self.inputs(0)) else 1e-10

    @cached_property
    def rows_are_independent(self) -> bool:
        """Some rows draw the random numbers of all, and each block is given the rows of the batch."""
        network, inputs, rows = copy.deepcopy(self.plain), self.inputs(0), set()
        for branch in residual_drop_path.discover(network).branches:
            branch.block.register_forward_pre_hook(
                lambda _, args: rows.update(len(value) for value in args if isinstance(value, Tensor))
            )
        outputs = []
        with torch.no_grad():
            for seed in (1, 2):
                network.load_state_dict(self.plain.state_dict())
                outputs.append(flat_output(seeded(network, seed)(**inputs)))
        return torch.equal(*outputs) and rows <= {num_rows(inputs)}


def num_rows(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def seeded(network: nn.Module, seed: int = 7) -> nn.Module:
    torch.default_generator.manual_seed(seed)
    return network
