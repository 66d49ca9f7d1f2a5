"""The handle of one residual branch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .discovery.found import Discovery
from .freezing.ownership import Ownership, Slot, assign_owners
from .options import Options
from .planning.draws import effective_rates
from .planning.plan import rates_over_depth


@dataclass(frozen=True)
class Branch:
    """One residual branch of a model.

    `drop_rate` is nominal; `effective_rate` is the probability to be dropped in the draws that a
    `dropped_part` iteration trains, given that these drop at least one branch.
    """

    name: str
    block: nn.Module
    drop_rate: float
    effective_rate: float
    slots: tuple[Slot, ...]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that belong to this branch alone."""
        own = [parameter for slot in self.slots if (parameter := slot.parameter) is not None]
        return list({id(parameter): parameter for parameter in own}.values())

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters)


def make_branches(model: nn.Module, discovery: Discovery, options: Options) -> tuple[tuple[Branch, ...], Ownership]:
    """Handles of the branches found, in order of execution, and who owns what."""
    found = discovery.branches
    ownership = assign_owners(model, discovery)
    rates = rates_over_depth([branch.block_index for branch in found], options.drop_path_rate, options.rate_over_depth)
    trains_dropped = options.schedule == "random" or options.schedule[1] > 0
    if trains_dropped:  # were only these dropped, nothing would learn
        rates = tuple(rate if _learns(ownership.slots[index]) else 0.0 for index, rate in enumerate(rates))
    effective = effective_rates(rates) if trains_dropped else rates
    branches = tuple(
        Branch(branch.name, branch.block, rate, effective_rate, tuple(ownership.slots[index]))
        for index, (branch, rate, effective_rate) in enumerate(zip(found, rates, effective, strict=True))
    )
    return branches, ownership


def _learns(slots: list[Slot]) -> bool:
    return any(parameter.requires_grad for slot in slots if (parameter := slot.parameter) is not None)
