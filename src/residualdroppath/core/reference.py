"""The readable twin: computes everything, skips nothing, and masks what the plan drops.

    drop_path:     x[l+1] = merge_l(shortcut_l(x[l]) + m_l * f_l(x[l]) / keep_l)
    dropped_part:  x[l+1] = merge_l(shortcut_l(x[l]) + f_l(x[l])),  f_l detached where it is frozen
                   and `freeze="stop_gradient"`

It interprets the traced forward of each block node by node. What runs fast must equal it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from .discovery import FoundBranch, discover, name_adds
from .freezing import has_running_statistics, scratch_buffers
from .options import Options
from .ownership import TRUNK, Ownership, assign_owners
from .plan import Plan
from .residual_add import ResidualAdd, find_residual_adds
from .tracing import defaults, forward_signature, trace_forward


@contextmanager
def reference_iteration(model: nn.Module, plan: Plan, options: Options, rows: int) -> Iterator[set[int]]:
    """Run forward and backward of `model` (a plain one) as `plan` says, for a batch of `rows` rows.

    Yields the owners that learn: indices of branches, and -1 for the trunk. The gradients of all
    others are to be ignored: the twin computes them too.
    """
    found = discover(model).branches
    ownership = assign_owners(model, found)
    masks = _masks(plan, options, found, rows)
    learning = _learning(plan, options, masks)
    by_block: dict[nn.Module, list[int]] = {}
    for index, branch in enumerate(found):
        by_block.setdefault(branch.block, []).append(index)

    with _frozen_norms(ownership, set(ownership.modules) - learning, plan, options):
        try:
            for block, indices in by_block.items():
                block.forward = _TwinForward(block, {found[i].suffix: i for i in indices}, masks, plan, options)
            yield learning
        finally:
            for block in by_block:
                block.__dict__.pop("forward", None)


def _masks(plan: Plan, options: Options, found: list[FoundBranch], rows: int) -> Tensor:
    """Dropped or not, bool[branches, rows], for both granularities."""
    if options.granularity == "sample":
        return plan.mask(rows)
    return torch.tensor([[branch.name in plan.dropped] for branch in found]).expand(-1, rows)


def _learning(plan: Plan, options: Options, masks: Tensor) -> set[int]:
    some_row, every_row = masks.any(dim=1).tolist(), masks.all(dim=1).tolist()
    if plan.kind == "drop_path":
        return {TRUNK} | {index for index, dropped in enumerate(every_row) if not dropped}
    return ({TRUNK} if options.train_trunk else set()) | {index for index, dropped in enumerate(some_row) if dropped}


@contextmanager
def _frozen_norms(ownership: Ownership, frozen: set[int], plan: Plan, options: Options) -> Iterator[None]:
    """`frozen_norm` from before the forward until after the backward."""
    if plan.kind == "drop_path" or options.frozen_norm == "update":
        yield
        return
    norms = [m for owner in frozen for m in ownership.modules[owner] if has_running_statistics(m)]
    before = [(norm, norm.training, {name: b.clone() for name, b in norm.named_buffers()}) for norm in norms]
    for norm in norms:
        norm.training = norm.training and options.frozen_norm == "batch"
    yield
    for norm, training, buffers in before:
        norm.training = training
        for name, buffer in buffers.items():
            norm.get_buffer(name).copy_(buffer)


class _TwinForward:
    def __init__(self, block: nn.Module, indices: dict[str, int], masks: Tensor, plan: Plan, options: Options):
        self.block = block
        self.indices = indices
        self.masks = masks
        self.plan = plan
        self.options = options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.block.training:
            return type(self.block).forward(self.block, *args, **kwargs)
        signature = forward_signature(self.block)
        given = signature.bind(*args, **kwargs).arguments
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        constants = {name: value for name, value in {**defaults(signature), **given}.items() if name not in tensors}
        return _TwinInterpreter(self, trace_forward(self.block, constants)).run(*tensors.values())


class _TwinInterpreter(fx.Interpreter):
    def __init__(self, twin: _TwinForward, graph: fx.Graph):
        super().__init__(twin.block, garbage_collect_values=False, graph=graph)
        self.twin = twin
        adds = name_adds(graph, find_residual_adds(graph, twin.block)[0], twin.block)
        self.adds = {twin.indices[suffix]: add for suffix, add in adds.items()}
        self.index_of_add = {add.node: index for index, add in self.adds.items()}
        self.index_of_node = {node: index for index, add in self.adds.items() for node in add.nodes}

    def run_node(self, n: fx.Node) -> Any:
        index = self.index_of_node.get(n)
        drops_all = self.twin.plan.kind == "drop_path" and index is not None and bool(self.twin.masks[index].all())
        with ExitStack() as stack:
            if drops_all:  # leave no trace: neither in buffers nor in the random generator
                stack.enter_context(torch.random.fork_rng(devices=[]))
                if n.op == "call_module":
                    called = self.twin.block.get_submodule(str(n.target))
                    stack.enter_context(scratch_buffers(called.modules()))
            if n in self.index_of_add:
                return self.add(n, self.index_of_add[n])
            return super().run_node(n)

    def add(self, node: fx.Node, index: int) -> Any:
        """The add as written, its branch operand masked, scaled or detached."""
        add: ResidualAdd = self.adds[index]
        options, plan = self.twin.options, self.twin.plan
        branch: Tensor = self.env[add.branch]
        dropped = self.twin.masks[index].to(branch.device).view(-1, *[1] * (branch.dim() - 1))
        if plan.kind == "drop_path":
            keep_prob = 1.0 - plan.drop_rates[index]
            factor = 1.0 / keep_prob if options.scale_by_keep and keep_prob > 0 else 1.0
            branch = branch * (~dropped).to(branch.dtype) * factor
        elif options.freeze == "stop_gradient":
            branch = torch.where(dropped, branch, branch.detach())
        args: list[Any] = [self.env[add.shortcut], self.env[add.shortcut]]
        args[add.branch_operand] = branch
        return getattr(self, node.op)(node.target, tuple(args), {})
