"""A block's forward with a residual state in the place of each residual add."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..discovery.branch_subgraph import ResidualAdd
from ..graph.graph_code import code_of, function_of, function_of_code, with_code_of_its_own
from ..graph.node_kinds import down_to_last, is_inplace, is_layer_of_torch
from ..graph.shape_guards import check_guard
from ..torch_internals import BatchNorm, Convolution, backward_name
from .add_point import AddPoint, BranchState
from .fold_scale import FoldTarget, is_watched, last_of

VIEW_METHODS = ("view", "reshape", "permute", "transpose", "flatten", "unflatten", "contiguous", "squeeze", "unsqueeze")


@dataclass(frozen=True)
class RewrittenAdd:
    """What is known of one residual add before there is a block: its branch as a function of (block, *inputs)."""

    name: str
    in_code: str
    branch: types.FunctionType
    add: Callable[[Tensor, Tensor], Tensor]
    copies: bool
    overwrites_shortcut: bool
    last: tuple[str, Sequence[str], Sequence[str]] | None  # of `FoldTarget`


@dataclass(frozen=True)
class RewrittenForward:
    """The forward of a kind of blocks with a place for a residual state at each residual add."""

    code: types.CodeType
    names: Mapping[str, Any]
    adds: tuple[RewrittenAdd, ...]

    def of(
        self, block: nn.Module, states: Mapping[str, BranchState], compile_options: Mapping[str, Any] | None = None
    ) -> Callable[..., Any]:
        """A function like `type(block).forward`, its residual adds (by branch name) left to `states`.

        Modules and parameters are looked up on the block at every call. With `compile_options` each branch is
        compiled by itself: what is dropped is decided outside of its graphs.
        """
        names = dict(self.names)
        for add in self.adds:
            branch: Any = add.branch
            if compile_options is not None:  # what was compiled is kept by code: each block has its own
                branch = torch.compile(with_code_of_its_own(add.branch), **compile_options)
            folds = add.last is not None and compile_options is None  # graphs take parameters as they are
            names[add.in_code] = AddPoint(
                state=states[add.name],
                run=functools.partial(branch, block),
                add=add.add,
                copies=add.copies,
                overwrites_shortcut=add.overwrites_shortcut,
                last=FoldTarget(block, *add.last) if add.last and folds else None,
            )
        return function_of_code(self.code, names)


def rewrite(
    graph: fx.Graph, block: nn.Module, adds: Mapping[str, ResidualAdd], *, output_may_be_overwritten: bool
) -> RewrittenForward:
    """The forward of the block, and of all like it, with places for states. Consumes `graph`."""
    drops = {name: how_to_drop(add, block, adds, output_may_be_overwritten) for name, add in adds.items()}
    rewritten: list[RewrittenAdd] = []
    places: list[Callable[..., Any]] = []
    for name, add in adds.items():
        copies, spare = drops[name]
        branch, inputs = _branch_function(add, block, name)
        node = add.node
        places.append(_place(len(places)))
        rewritten.append(
            RewrittenAdd(
                name=name,
                in_code="",
                branch=branch,
                add=_add_as_written(node, add.branch_operand),
                copies=copies,
                overwrites_shortcut=_overwrites_shortcut(add, block),
                last=last_of(add),
            )
        )
        with graph.inserting_before(node):
            call = graph.call_function(places[-1], (add.shortcut, *inputs))
        for activation in spare:
            with graph.inserting_before(activation):
                arguments = (graph.get_attr(str(activation.target)), node, add.shortcut)
            activation.op, activation.target, activation.args = "call_function", run_sparing, arguments
        node.replace_all_uses_with(call)
        graph.erase_node(node)
        for member in reversed(add.nodes):
            graph.erase_node(member)
    _check_what_children_return(graph)
    code, names = code_of(graph, f"residual_droppath_{type(block).__name__}_{id(graph)}")
    in_code = {id(value): name for name, value in names.items()}
    named = (replace(add, in_code=in_code[id(place)]) for add, place in zip(rewritten, places, strict=True))
    return RewrittenForward(code, names, tuple(named))


def _place(number: int) -> Callable[..., Any]:
    def place(*args: Any) -> Any: ...

    place.__name__ = place.__qualname__ = f"residual_add_{number}"  # fx writes calls by name
    return place


def _branch_function(add: ResidualAdd, block: nn.Module, name: str) -> tuple[types.FunctionType, list[fx.Node]]:
    """The branch as a function of (block, *inputs), and those inputs."""
    graph = fx.Graph()
    members = set(add.nodes)
    # Read off the nodes now: rewriting an earlier add has renamed what they take.
    inputs = list(dict.fromkeys(n for member in add.nodes for n in member.all_input_nodes if n not in members))
    copies = {source: graph.placeholder(f"input_{i}") for i, source in enumerate(inputs)}
    for member in add.nodes:
        copies[member] = graph.node_copy(member, copies.__getitem__)
    graph.output(copies[add.branch])
    _check_what_children_return(graph)
    return function_of(graph, f"residual_branch_{type(block).__name__}_{id(graph)}"), inputs


def _check_what_children_return(graph: fx.Graph) -> None:
    """Where no call has shown it, children are taken to return a value that is not None."""
    for node in [node for node in graph.nodes if node.meta.get("returned") and node.users]:
        with graph.inserting_after(node):
            graph.call_function(check_guard, (node, "is_none", False))


def _add_as_written(node: fx.Node, branch_operand: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The add, as a function of (shortcut, branch), with its own operator and operand order."""
    operation: Callable[..., Tensor]
    if node.op == "call_function":
        assert callable(node.target)
        operation = node.target
    else:
        operation = functools.partial(_call_method, str(node.target))
    if branch_operand == 1:
        return operation
    return lambda shortcut, branch: operation(branch, shortcut)


def _call_method(name: str, first: Tensor, second: Tensor) -> Tensor:
    return getattr(first, name)(second)


def how_to_drop(
    add: ResidualAdd, block: nn.Module, adds: Mapping[str, ResidualAdd], output_may_be_overwritten: bool
) -> tuple[bool, list[fx.Node]]:
    """Whether a dropped branch must hand on a copy, and which activations after it must spare the shortcut.

    The shortcut may be the block's input, which others still read or the layer before has saved for its
    backward. What a convolution, linear layer or batch norm returned is nobody else's.
    """
    shortcut = add.shortcut
    if _overwrites_shortcut(add, block):
        return False, []
    if shortcut.op == "call_module" and len(shortcut.users) == 1:
        last = down_to_last(block.get_submodule(str(shortcut.target)))[-1]
        if isinstance(last, (Convolution, nn.Linear, BatchNorm)) and is_layer_of_torch(last):
            return False, []
    in_branches = {member for other in adds.values() for member in other.nodes}
    spare = [user for user in add.node.users if user not in in_branches and _can_spare(user, block)]
    if len(add.node.users) > 1:  # the others read what the activation has made of the sum
        spare = []
    copies = _may_be_overwritten(add.node, block, output_may_be_overwritten, spare)
    return (True, []) if copies else (False, spare)


def _can_spare(node: fx.Node, block: nn.Module) -> bool:
    """Whether the node is a layer of PyTorch's that works in place and can be told not to, like `nn.ReLU`."""
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return False
    layer = block.get_submodule(str(node.target))
    return is_layer_of_torch(layer) and getattr(layer, "inplace", False) is True


def run_sparing(activation: Any, value: Tensor, shortcut: Tensor) -> Tensor:
    """In place as written, unless the value is the shortcut that a dropped branch has handed on."""
    if value is not shortcut:
        return activation(value)
    if type(activation) is nn.ReLU and not is_watched(activation) and _is_rectified(value):
        return value  # a second ReLU changes neither values nor gradients, and would keep them once more
    activation.inplace = False
    try:
        return activation(value)
    finally:
        activation.inplace = True


def _is_rectified(value: Tensor) -> bool:
    return backward_name(value) == "ReluBackward0"


def _overwrites_shortcut(add: ResidualAdd, block: nn.Module) -> bool:
    return is_inplace(add.node, block) and add.branch_operand == 1


def _may_be_overwritten(
    node: fx.Node, block: nn.Module, output_may_be_overwritten: bool, spare: Sequence[fx.Node] = ()
) -> bool:
    for user in node.users:
        if user.op == "output":
            overwritten = output_may_be_overwritten
        elif user not in spare and user.all_input_nodes[0] is node and is_inplace(user, block):
            overwritten = True
        elif _may_alias(user, block):
            overwritten = _may_be_overwritten(user, block, output_may_be_overwritten)
        else:
            overwritten = False
        if overwritten:
            return True
    return False


def _may_alias(node: fx.Node, block: nn.Module) -> bool:
    """Whether the node may return its input, or a view of it."""
    if node.op == "call_module":
        return not any(True for _ in block.get_submodule(str(node.target)).parameters())
    return node.op == "call_method" and node.target in VIEW_METHODS
