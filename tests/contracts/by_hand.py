"""What the plan in force means, worked out by hand from DESIGN.md: who is dropped, who learns, what is added."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from residualdroppath import Plan, ResidualDropPath

TRUNK = "trunk"
Gate = Callable[
    [str, Callable[[], Tensor]], Tensor | float
]  # the name of a branch and what computes it, to what is added


def masks_of(rdp: ResidualDropPath, rows: int, plan: Plan | None = None) -> dict[str, Tensor]:
    """By branch, the rows that drop it, bool[rows]; of the plan in force, or of another one."""
    plan, names = plan or rdp.plan, [branch.name for branch in rdp.branches]
    if rdp.options.granularity == "sample":
        return dict(zip(names, plan.mask(rows), strict=True))
    return {name: torch.full((rows,), name in plan.dropped) for name in names}


def drops_a_part(rdp: ResidualDropPath, rows: int, plan: Plan | None = None) -> bool:
    """Some branches or rows are dropped and, where there are several branches that may be, some are not.

    Where everything is trained, nothing is left out.
    """
    if rdp.options.trains == "all" and (plan or rdp.plan).kind == "dropped_part":
        return True
    rates = (plan or rdp.plan).drop_rates
    masks = [mask for mask, rate in zip(masks_of(rdp, rows, plan).values(), rates, strict=True) if rate > 0]
    dropped = [bool(row) for mask in masks for row in mask]
    return any(dropped) and (not all(dropped) or len(masks) == 1)


def learners_of(rdp: ResidualDropPath, rows: int) -> set[str]:
    """Branches that learn, and the trunk if it does."""
    masks = masks_of(rdp, rows)
    if rdp.kind == "drop_path":
        return {TRUNK} | {name for name, dropped in masks.items() if not dropped.all()}
    trunk = {TRUNK} if rdp.options.train_trunk or rdp.options.trains == "all" else set()
    return trunk | {name for name, dropped in masks.items() if dropped.any()}


def gate_of(rdp: ResidualDropPath, rows: int) -> Gate:
    """What stands between a branch and its add in DESIGN.md, section 1."""
    masks, options = masks_of(rdp, rows), rdp.options
    rates = dict(zip(masks, rdp.plan.drop_rates, strict=True))

    def drop_path(name: str, run: Callable[[], Tensor]) -> Tensor | float:
        if masks[name].all():
            return 0.0
        branch = run()
        kept = (~masks[name]).double().view(-1, *[1] * (branch.dim() - 1))
        return kept * branch / (1 - rates[name] if options.scale_by_keep else 1)

    def dropped_part(name: str, run: Callable[[], Tensor]) -> Tensor:
        branch = run()
        if options.freeze == "parameters":
            return branch
        if not masks[name].any():
            return branch.detach()
        learning = masks[name].double().view(-1, *[1] * (branch.dim() - 1))
        return learning * branch + (1 - learning) * branch.detach()

    return drop_path if rdp.kind == "drop_path" else dropped_part


def frozen_norms(network: nn.Module, owners: Mapping[str, str], learners: set[str]) -> dict[str, _BatchNorm]:
    """Batch norms whose parameters, by name in `owners`, belong to what does not learn."""
    norms = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    return {name: norm for name, norm in norms.items() if owners.get(f"{name}.weight", TRUNK) not in learners}


@contextmanager
def norm_modes(rdp: ResidualDropPath, norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """`frozen_norm` for the frozen norms of a network that runs everything, from before forward to after backward."""
    mode = rdp.options.frozen_norm
    if rdp.kind == "drop_path" or mode == "update":
        yield
        return
    before = {norm: {name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms}
    for norm in before:
        norm.train(mode == "batch")
    yield
    for norm, buffers in before.items():
        norm.train()
        for name, buffer in norm.named_buffers():
            buffer.copy_(buffers[name])
