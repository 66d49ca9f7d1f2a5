"""The readable twin: computes everything, skips nothing, and masks what the plan drops.

    drop_path:     x[l+1] = merge_l(shortcut_l(x[l]) + m_l * f_l(x[l]) / keep_l)
    dropped_part:  x[l+1] = merge_l(shortcut_l(x[l]) + f_l(x[l])),  f_l detached where it is frozen
                   and `freeze="stop_gradient"`

What is frozen: all but what `trains` names, as rows too, from the draws of the cycle.

It interprets the traced forward of each block node by node. What runs fast must equal it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.immutable_collections import immutable_dict, immutable_list

from .discovery.block_branches import branches_for_call
from .discovery.branch_subgraph import ResidualAdd
from .discovery.found import FoundBranch
from .discovery.network_walk import discover
from .discovery.registry import registered_block
from .discovery.unread_outputs import leave_out_unread
from .forward_override import ForwardOverride
from .freezing.frozen_norms import has_running_statistics, scratch_buffers
from .freezing.ownership import TRUNK, Ownership, assign_owners
from .graph.call_form import form_of
from .graph.tracing import trace_call
from .options import Options
from .planning.plan import Plan
from .random_states import random_states_restored


@contextmanager
def reference_iteration(
    model: nn.Module, plan: Plan, options: Options, rows: int, example: Any = None
) -> Iterator[set[int]]:
    """Run forward and backward of `model` (a plain one) as `plan` says, for a batch of `rows` rows in all blocks.

    Yields the owners that learn: indices of branches, and -1 for the trunk. The gradients of all
    others are to be ignored: the twin computes them too. `example` as for `ResidualDropPath`.
    """
    discovery = discover(model, example)
    found = discovery.branches
    ownership = assign_owners(model, discovery)
    masks = _masks(plan, options, found, rows)
    learning = _learning(plan, options, masks)
    by_block: dict[nn.Module, list[int]] = {}
    for index, branch in enumerate(found):
        by_block.setdefault(branch.block, []).append(index)

    with _frozen_norms(ownership, set(ownership.modules) - learning, plan, options):
        try:
            for block, indices in by_block.items():
                block.forward = _TwinForward(
                    block,
                    {found[i].suffix: i for i in indices},
                    masks,
                    plan,
                    options,
                    discovery.outputs_read.get(block),
                )
            yield learning
        finally:
            for block in by_block:
                block.__dict__.pop("forward", None)


def _masks(plan: Plan, options: Options, found: list[FoundBranch], rows: int) -> Tensor:
    """Dropped or not: bool[branches, rows], or bool[branches, 1] where whole branches are dropped."""
    if options.granularity == "sample":
        return plan.mask(rows)
    return torch.tensor([[branch.name in plan.dropped] for branch in found])


def _learning(plan: Plan, options: Options, masks: Tensor) -> set[int]:
    some_row, every_row = masks.any(dim=1).tolist(), masks.all(dim=1).tolist()
    if plan.kind == "drop_path":
        return {TRUNK} | {index for index, dropped in enumerate(every_row) if not dropped}
    trunk = {TRUNK} if options.train_trunk or options.trains == "all" else set()
    return trunk | {index for index, dropped in enumerate(some_row) if dropped}


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


class _TwinForward(ForwardOverride):
    def __init__(
        self,
        block: nn.Module,
        indices: dict[str, int],
        masks: Tensor,
        plan: Plan,
        options: Options,
        outputs_read: frozenset[int] | None,
    ):
        super().__init__(block)
        self.block = block
        self.indices = indices
        self.masks = masks
        self.plan = plan
        self.options = options
        self.outputs_read = outputs_read

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.block.training:
            return type(self.block).forward(self.block, *args, **kwargs)
        registered = registered_block(self.block)
        if registered is not None:
            return registered.forward(self.block, self.add_by_name, *args, **kwargs)
        with random_states_restored(self.block):
            call = trace_call(self.block, args, kwargs)
        graph = leave_out_unread(call.graph, self.block, self.outputs_read)
        adds = branches_for_call(graph, self.block, call.form, self.indices)
        values = form_of(call.form.signature, args, kwargs)[1]
        return _TwinInterpreter(self, graph, adds).run(*values.values())

    def add_by_name(self, name: str, shortcut: Tensor, branch: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        index = self.indices[name]
        with self.leaving_no_trace(index, self.block.modules()):
            computed = branch(*inputs)
        return shortcut + self.masked(computed, index)

    def leaving_no_trace(self, index: int, modules: Iterable[nn.Module]) -> AbstractContextManager[Any]:
        """Where all rows drop a branch, it is computed without a trace in buffers or in the random generator."""
        stack = ExitStack()
        if self.plan.kind == "drop_path" and bool(self.masks[index].all()):
            stack.enter_context(torch.random.fork_rng(devices=[]))
            stack.enter_context(scratch_buffers(modules))
        return stack

    def masked(self, branch: Tensor, index: int) -> Tensor:
        """What is added of a branch: masked, scaled or detached."""
        dropped = self.masks[index].to(branch.device).view(-1, *[1] * (branch.dim() - 1))
        if self.plan.kind == "drop_path":
            keep_prob = 1.0 - self.plan.drop_rates[index]
            factor = 1.0 / keep_prob if self.options.scale_by_keep and keep_prob > 0 else 1.0
            return branch * (~dropped).to(branch.dtype) * factor
        if self.options.freeze == "stop_gradient":
            return torch.where(dropped, branch, branch.detach())
        return branch


class _TwinInterpreter(fx.Interpreter):
    def __init__(self, twin: _TwinForward, graph: fx.Graph, adds: dict[str, ResidualAdd]):
        super().__init__(twin.block, garbage_collect_values=False, graph=graph)
        self.twin = twin
        self.adds = {twin.indices[suffix]: add for suffix, add in adds.items()}
        self.index_of_add = {add.node: index for index, add in self.adds.items()}
        self.index_of_node = {node: index for index, add in self.adds.items() for node in add.nodes}

    def run_node(self, n: fx.Node) -> Any:
        if n in self.index_of_add:
            return self.add(n, self.index_of_add[n])
        if n not in self.index_of_node:
            return super().run_node(n)
        called = self.twin.block.get_submodule(str(n.target)).modules() if n.op == "call_module" else ()
        with self.twin.leaving_no_trace(self.index_of_node[n], called):
            return super().run_node(n)

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return _as_written(args), _as_written(kwargs)

    def add(self, node: fx.Node, index: int) -> Any:
        """The add as written, what it adds masked."""
        add = self.adds[index]
        args: list[Any] = [self.env[add.shortcut], self.env[add.shortcut]]
        args[add.branch_operand] = self.twin.masked(self.env[add.branch], index)
        return getattr(self, node.op)(node.target, tuple(args), {})


def _as_written(value: Any) -> Any:
    """Lists and dicts that the callee may change, as the forward's own are; a graph holds immutable ones."""
    if type(value) is immutable_list:
        return [_as_written(item) for item in value]
    if type(value) is immutable_dict:
        return {key: _as_written(item) for key, item in value.items()}
    return tuple(map(_as_written, value)) if type(value) is tuple else value
