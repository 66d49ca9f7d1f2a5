"""A network without some of its residual branches, as a plain module of its own."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from .branch import Branch
from .discovery.block_branches import GivenCall, OtherUse, branches_for_call, find_block_branches
from .discovery.found import Discovery, FoundBranch
from .discovery.module_roles import is_container
from .discovery.network_walk import discover
from .discovery.own_drop_path import find_own_drop_path, switched_off
from .discovery.recorded_calls import arguments_of
from .discovery.registry import RegisteredBlock, registered_block
from .discovery.unread_outputs import leave_out_unread
from .forward_override import foreign_forward
from .garbage import garbage_waits
from .graph.both_modes import merged
from .graph.call_form import form_of, forward_signature, numbers_in
from .graph.graph_modules import differences, graph_module
from .graph.nested_values import detached
from .graph.node_kinds import is_inplace
from .graph.plain_copies import PlainCopies
from .graph.shape_guards import is_guard
from .graph.standalone import standalone_graph
from .graph.trace_errors import UntraceableError
from .graph.tracing import TracedCall, trace_call, trace_unknown
from .random_states import random_states_restored
from .running.rewrite import how_to_drop
from .torch_internals import HOOKS_OF_MODULE, own_children

Call = tuple[tuple[Any, ...], dict[str, Any]]


def prune(model: nn.Module, branches: Sequence[str | Branch], *, example: Any = None) -> nn.Module:
    """A plain copy of `model` without these residual branches: their adds return the shortcut.

    What belongs to the branches alone is gone and nothing of it is computed. The blocks become `torch.fx.GraphModule`
    with parts of the same names, so the state holds keys of the model's own; the copy is saved and loaded without
    this package, and trains. Parts that the forward of a pruned block does not use are gone too. The model itself
    stays as it is; it may be under a ResidualDropPath.

    A pruned block serves calls of the form that was seen: another one (a mask where there was none) raises
    `AssertionError`. Where a block does other operations in training mode than in evaluation mode, more than that
    flags and numbers differ, the pruned one runs in evaluation mode alone, and raises in training mode.

    Args:
        model: any network whose residual branches are found.
        branches: their names, as `print(rdp)` lists them, or entries of `rdp.branches`.
        example: a batch as the model is called with (a tensor, a tuple of arguments, or a dict of keyword
            arguments), which shows how blocks are called. Without it, the code of their callers does.

    Raises:
        ValueError: a name of no branch, or a block that cannot be pruned, with the reason.
        NoResidualBranchError: no residual branch was found.
    """
    own = _plain_copy(model)
    names = _names(branches)
    if not names:
        return own
    with garbage_waits():
        with switched_off(find_own_drop_path(own)):
            found = discover(own, example)
            _check_names(names, found)
            blocks = dict.fromkeys(branch.block for branch in found.branches if branch.name in names)
            calls = _calls_on(own, example, blocks) if example is not None else {}
        in_code = _CallsInCode(own)
        pruned: dict[nn.Module, tuple[str, fx.Graph]] = {}
        for block in blocks:
            its = [branch for branch in found.branches if branch.block is block]
            source = _Block(block, its, {b.suffix for b in its if b.name in names}, found)
            with _refused(source.path, block, example is not None):
                given = in_code.of(source.path) if example is None else calls[block]
                pruned[block] = source.path, source.graph(given, followed=example is not None)
        pruned_model = _with_graphs(own, pruned, example is not None)
    if example is not None:
        _check_that_it_runs(pruned_model, example)
    return pruned_model


def _plain_copy(model: nn.Module) -> nn.Module:
    own = copy.deepcopy(model)
    for module in own.modules():
        if "forward" in vars(module) and foreign_forward(module) is None:
            del vars(module)["forward"]  # the one of its class, in the place of one of ours
    return own


def _names(branches: Sequence[str | Branch]) -> set[str]:
    if isinstance(branches, (str, Branch)) or not isinstance(branches, (Sequence, set, frozenset)):
        raise ValueError(
            f"`branches` must be a list of names or of entries of `rdp.branches`, got {branches!r}; put it in a list."
        )
    # What cannot be a name is refused by how it is written, with the names that there are.
    return {
        branch.name if isinstance(branch, Branch) else branch if isinstance(branch, str) else repr(branch)
        for branch in branches
    }


def _check_names(names: set[str], found: Discovery) -> None:
    known = [branch.name for branch in found.branches]
    if unknown := sorted(map(str, names.difference(known))):
        raise ValueError(
            f"`branches` must be names of residual branches of the model, {', '.join(known)}, got "
            f"{', '.join(unknown)}; see `print(rdp)`, and pass the `example` that it was made with, if any."
        )


@contextmanager
def _refused(path: str, block: nn.Module, has_example: bool) -> Iterator[None]:
    try:
        yield
    except (UntraceableError, OtherUse) as error:
        mend = "Leave out its branches" if has_example else "Pass an `example`, or leave out its branches"
        raise ValueError(
            f"`branches` must be in blocks that can be written as a graph; {path or 'the model'} "
            f"({type(block).__name__}) cannot: {error}. {mend}."
        ) from error


# Calls of blocks


def _calls_on(model: nn.Module, example: Any, blocks: Mapping[nn.Module, Any]) -> dict[nn.Module, list[list[Call]]]:
    """By block, its calls in one forward of the model in training mode, and in one in evaluation mode."""
    args, kwargs = arguments_of(example)
    calls: dict[nn.Module, list[list[Call]]] = {block: [[], []] for block in blocks}
    for mode, in_training in enumerate((True, False)):

        def forward_of(module: nn.Module, its: nn.Module, mode: int = mode) -> Callable[..., Any] | None:
            if module not in calls:
                return None

            def forward(*args: Any, **kwargs: Any) -> Any:
                calls[module][mode].append((detached(args), detached(kwargs)))
                return type(module).forward(its, *args, **kwargs)

            return forward

        with _in_mode(model, in_training), random_states_restored(model), torch.no_grad():
            PlainCopies(forward_of).of(model)(*detached(args), **detached(kwargs))
    return calls


def _check_that_it_runs(model: nn.Module, example: Any) -> None:
    """The forward of a caller may read parts of a block that are gone."""
    args, kwargs = detached(arguments_of(example))
    try:
        with _in_mode(model, False), random_states_restored(model), torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:
        raise ValueError(
            f"`branches` must leave a network that runs on the example; without them {type(model).__name__} raised "
            f"{type(error).__name__}: {error}. Leave out the branch that holds what is missing."
        ) from error


class _CallsInCode:
    """Calls of blocks as the graphs of their callers show them."""

    def __init__(self, model: nn.Module):
        self.model = model

    def of(self, path: str) -> list[GivenCall]:
        """Those in the plainest graph of the nearest module around that calls it; none if that cannot be followed."""
        around = path
        while around:
            around = around.rpartition(".")[0]
            name = path[len(around) :].lstrip(".")
            if calls := [call for called, call in self.by(around) if called == name]:
                return calls
        return []

    @functools.cache  # noqa: B019 (lives as long as one call of `prune`)
    def by(self, path: str) -> list[tuple[str, GivenCall]]:
        module = self.model.get_submodule(path)
        if is_container(module):
            return []
        try:
            found = find_block_branches(module)
        except UntraceableError:
            return []
        return replace(found, graphs=found.graphs[:1]).calls_of_children


# Graphs of blocks


class _Block:
    """One block, of whose branches those with the suffixes `pruned` go."""

    def __init__(self, block: nn.Module, branches: Sequence[FoundBranch], pruned: set[str], found: Discovery):
        self.block = block
        self.path = branches[0].block_path
        self.suffixes = [branch.suffix for branch in branches]
        self.pruned = pruned
        self.found = found
        self.registered = registered_block(block)
        self.traced = block if self.registered is None else _as_registered(block, self.registered, pruned)

    def graph(self, calls: Sequence[Any], *, followed: bool) -> fx.Graph:
        """The graph of both modes; `calls` are those of each mode, if they were made, or those in the code."""
        if any(getattr(self.block, name) for name in HOOKS_OF_MODULE):
            raise UntraceableError("it has hooks, which a graph would leave out; remove them before")
        title = type(self.block).__name__
        of_modes = calls if followed else (calls, calls)
        evaluation = self.of_mode(of_modes[1], followed, in_training=False)
        try:
            training = self.of_mode(of_modes[0], followed, in_training=True)
        except (UntraceableError, OtherUse):
            training = fx.Graph()
        return merged(training, evaluation, title)

    def of_mode(self, calls: Sequence[Any], followed: bool, *, in_training: bool) -> fx.Graph:
        if followed and not calls:
            raise UntraceableError(
                f"the example does not call it in {'training' if in_training else 'evaluation'} mode"
            )
        with _in_mode(self.block, in_training), _in_mode(self.traced, in_training):
            graphs = [self.standalone(self.trace(call, followed, in_training)) for call in calls or [None]]
        for graph in graphs[1:]:
            if found := differences(graph, graphs[0]):
                raise UntraceableError(f"it is called in forms that no one graph serves: {found[0]}")
        return graphs[0]

    def trace(self, call: Any, followed: bool, in_training: bool) -> TracedCall:
        if followed:
            with random_states_restored(self.block):
                return trace_call(self.traced, *call, in_training=in_training)
        if call is None:
            return trace_unknown(self.traced, in_training=in_training)
        form, values = form_of(forward_signature(self.traced), *call)
        return trace_unknown(self.traced, form, numbers_in(values), in_training=in_training)

    def standalone(self, call: TracedCall) -> fx.Graph:
        graph = call.graph
        if self.registered is None:
            graph = leave_out_unread(graph, self.block, self.found.outputs_read.get(self.block))
            self.leave_out_branches(graph, call)
        return standalone_graph(graph, call.form, self.block)

    def leave_out_branches(self, graph: fx.Graph, call: TracedCall) -> None:
        adds = branches_for_call(graph, self.block, call.form, self.suffixes)
        overwritten = self.found.outputs_may_be_overwritten
        copies = {suffix: any(how_to_drop(add, self.block, adds, overwritten)) for suffix, add in adds.items()}
        unused = {node for node in graph.nodes if not node.users}
        for suffix, add in adds.items():
            if suffix not in self.pruned:
                continue
            shortcut = add.shortcut
            if copies[suffix]:
                with graph.inserting_before(add.node):
                    shortcut = graph.call_method("clone", (shortcut,))
            add.node.replace_all_uses_with(shortcut)
            for node in (add.node, *reversed(add.nodes)):
                graph.erase_node(node)
        for node in reversed(graph.nodes):  # what served pruned branches alone
            kept = node.users or node in unused or node.op in ("placeholder", "output") or is_guard(node)
            if not kept and not is_inplace(node, self.block):
                graph.erase_node(node)


def _as_registered(block: nn.Module, registered: RegisteredBlock, pruned: set[str]) -> nn.Module:
    """A shallow copy of the block whose forward is the registered one, without the pruned branches."""

    def add(name: str, shortcut: Tensor, branch: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return shortcut.clone() if name in pruned else shortcut + branch(*inputs)

    @functools.wraps(registered.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return registered.forward(self, add, *args, **kwargs)

    signature = inspect.signature(registered.forward)
    own, _, *rest = signature.parameters.values()
    forward.__signature__ = signature.replace(parameters=[own, *rest])  # pyright: ignore[reportAttributeAccessIssue]
    kind = type(type(block).__name__, (type(block),), {"forward": forward})
    same = object.__new__(kind)
    vars(same).update(vars(block))
    return same


@contextmanager
def _in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    before = {part: part.training for part in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


def _with_graphs(model: nn.Module, pruned: Mapping[nn.Module, tuple[str, fx.Graph]], has_example: bool) -> nn.Module:
    """The model with graphs in the place of blocks, the inner of two first."""
    for block, (path, graph) in sorted(pruned.items(), key=lambda item: len(item[1][0]), reverse=True):
        with _refused(path, block, has_example):
            made = graph_module(graph, block)
        if block is model:
            return made
        for module in model.modules():
            children = own_children(module)
            for name in [name for name, child in children.items() if child is block]:
                children[name] = made
    return model
