"""The handle of one residual branch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from .discovery.found import Discovery
from .discovery.own_drop_path import OwnDropPath
from .discovery.own_rates import rates_of_branches
from .freezing.frozen_norms import has_batch_statistics
from .freezing.ownership import Ownership, Slot
from .options import Options
from .planning.balanced import balanced_effective_rates
from .planning.draw import rates_of
from .planning.rates import branch_rates


@dataclass(frozen=True)
class Branch:
    """One residual branch of a model, by `name`, in its `block`. Rates are probabilities in [0, 1].

    `drop_rate` is nominal; `effective_rate` is the probability to be dropped in the draws that a
    `dropped_part` iteration trains, given that these drop at least one branch. `has_batch_statistics`: what the
    branch computes for one row depends on other rows.
    """

    name: str
    block: nn.Module
    drop_rate: float
    effective_rate: float
    slots: tuple[Slot, ...]
    has_batch_statistics: bool
    has_group_norm: bool

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that belong to this branch alone."""
        own = [parameter for slot in self.slots if (parameter := slot.parameter) is not None]
        return list({id(parameter): parameter for parameter in own}.values())

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


ALWAYS = 1.0 - 1e-9
USERS_FRAME = 5  # from here to the line that constructs a ResidualDropPath


def _dropped_always(name: str, rate: float, num_branches: int) -> str:
    others = "there is no other" if num_branches == 1 else f"the other {num_branches - 1} have rate 0"
    return (
        f"The branch {name} is dropped in every drop_path iteration that a dropped_part iteration trains (effective "
        f"rate 1, nominal rate {rate:g}), for one branch has to be dropped and {others}. Give further branches a rate "
        "above 0 (`rate_over_depth='uniform'`, `drop_rates`; `print(rdp)` lists what was found), make draws that "
        "drop nothing plain iterations, `empty_draw='plain'`, or use drop path alone, `schedule=(1, 0)`."
    )


def warn_of_raised_rates(branches: Sequence[Branch], options: Options) -> None:
    """One warning, about the branch whose effective rate is most above twice its nominal one."""
    raised = [each for each in branches if 2.0 * each.drop_rate < each.effective_rate < ALWAYS]
    if not raised:
        return
    worst = max(raised, key=lambda each: each.effective_rate / each.drop_rate)
    remedies = ["higher rates, or more branches with a rate"]
    if options.granularity == "batch":
        remedies.append("`empty_draw='plain'`: draws that drop nothing are plain iterations, and rates stay nominal")
    rates = tuple(each.drop_rate for each in branches)
    if balanced_effective_rates(rates)[branches.index(worst)] <= 2.0 * worst.drop_rate:
        remedies.append("`draw='balanced'`: few draws drop nothing")
    warnings.warn(
        f"The effective rate of the branch {worst.name} is {worst.effective_rate:.3g}, over twice its nominal rate of "
        f"{worst.drop_rate:.3g}, for draws that drop nothing are drawn again; so it is for {len(raised)} of "
        f"{len(branches)} branches. To avoid it: {'; '.join(remedies)}.",
        UserWarning,
        stacklevel=3,
    )


def warn_of_sequences_first(discovery: Discovery, options: Options) -> None:
    """Where rows are samples to `granularity="sample"` and places of a sequence to attention; one warning."""
    if options.granularity != "sample":
        return
    for found in discovery.branches:
        for module in found.modules():
            if isinstance(module, nn.MultiheadAttention) and not module.batch_first:
                warnings.warn(
                    f"`granularity='sample'` drops along the first dimension of a block's input, and attention in the "
                    f"branch {found.name} has `batch_first=False`: if the block is called with [length, batch, width], "
                    "places of the sequence are dropped, not samples. Build the model with `batch_first=True`, or use "
                    "`granularity='batch'`.",
                    UserWarning,
                    stacklevel=3,
                )
                return


def nominal_rates(
    model: nn.Module, discovery: Discovery, options: Options, own: Sequence[OwnDropPath]
) -> tuple[float, ...]:
    """The configured drop rate of each branch found; `own` is the drop path that the model brings along.

    Raises `ValueError` for a pattern that matches no branch, and where the model is to give rates but has none.
    """
    from_model = options.drop_path_rate == "model"
    return branch_rates(
        [branch.name for branch in discovery.branches],
        [branch.block_index for branch in discovery.branches],
        0.0 if options.drop_path_rate == "model" else options.drop_path_rate,
        options.rate_over_depth,
        model_rates=rates_of_branches(model, discovery, own) if from_model else None,
        drop_rates=options.drop_rates,
        include=options.include,
        exclude=options.exclude,
    )


def make_branches(
    discovery: Discovery, ownership: Ownership, rates: Sequence[float], learns: Sequence[bool], options: Options
) -> tuple[Branch, ...]:
    """Handles of the branches found, in order of execution.

    Where dropped branches are to learn, those in which nothing `learns` are not dropped: were only these dropped,
    nothing would learn.
    """
    if options.trains_dropped:
        rates = [rate if has_something else 0.0 for rate, has_something in zip(rates, learns, strict=True)]
    effective = rates_of(options.draw, tuple(rates), options.redraws)
    for found, rate, effective_rate in zip(discovery.branches, rates, effective, strict=True):
        if effective_rate > ALWAYS and rate <= ALWAYS:
            warnings.warn(_dropped_always(found.name, rate, len(rates)), UserWarning, stacklevel=USERS_FRAME)
    return tuple(
        Branch(
            found.name,
            found.block,
            rate,
            effective_rate,
            tuple(ownership.slots[index]),
            has_batch_statistics(found.modules()),
            any(isinstance(module, nn.GroupNorm) for module in found.modules()),
        )
        for index, (found, rate, effective_rate) in enumerate(zip(discovery.branches, rates, effective, strict=True))
    )
