"""A block's forward with a residual state in the place of each residual add."""

from __future__ import annotations

import functools
import linecache
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..discovery.branch_subgraph import ResidualAdd
from ..graph.node_kinds import down_to_last, is_inplace, is_layer_of_torch
from ..graph.shape_guards import check_guard
from ..torch_internals import BatchNorm, Convolution, backward_name
from .add_point import AddPoint, BranchState
from .fold_scale import fold_target, is_watched

VIEW_METHODS = ("view", "reshape", "permute", "transpose", "flatten", "unflatten", "contiguous", "squeeze", "unsqueeze")


def rewrite(
    graph: fx.Graph,
    block: nn.Module,
    adds: Mapping[str, ResidualAdd],
    states: Mapping[str, BranchState],
    *,
    output_may_be_overwritten: bool,
    compile_options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """A function like `type(block).forward`, its residual adds (by branch name) left to `states`.

    Modules and parameters are looked up on the block at every call. With `compile_options` each branch
    is compiled by itself: what is dropped is decided outside of its graphs. Consumes `graph`.
    """
    drops = {name: _how_to_drop(add, block, adds, output_may_be_overwritten) for name, add in adds.items()}
    for name, add in adds.items():
        copies, spare = drops[name]
        branch, inputs = _branch_function(add, block, name)
        if compile_options is not None:
            branch = torch.compile(branch, **compile_options)
        node = add.node
        add_point = AddPoint(
            state=states[name],
            run=functools.partial(branch, block),
            add=_add_as_written(node, add.branch_operand),
            copies=copies,
            overwrites_shortcut=_overwrites_shortcut(add, block),
            last=fold_target(add, block) if compile_options is None else None,  # graphs take parameters as they are
        )
        with graph.inserting_before(node):
            call = graph.call_function(
                _named_function(add_point, f"residual_add_{add_point.state.index}"), (add.shortcut, *inputs)
            )
        for activation in spare:
            with graph.inserting_before(activation):
                arguments = (graph.get_attr(str(activation.target)), node, add.shortcut)
            activation.op, activation.target, activation.args = "call_function", run_sparing, arguments
        node.replace_all_uses_with(call)
        graph.erase_node(node)
        for member in reversed(add.nodes):
            graph.erase_node(member)
    _check_what_children_return(graph)
    return _function_of(graph, f"residual_droppath_{type(block).__name__}_{id(graph)}")


def _branch_function(add: ResidualAdd, block: nn.Module, name: str) -> tuple[Callable[..., Tensor], list[fx.Node]]:
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
    return _function_of(graph, f"residual_branch_{type(block).__name__}_{id(graph)}"), inputs


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


def _how_to_drop(
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


def _named_function(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    def function(*args: Any) -> Any:
        return call(*args)

    function.__name__ = function.__qualname__ = name  # fx writes calls by name
    return function


def _function_of(graph: fx.Graph, name: str) -> Callable[..., Any]:
    """The graph as a Python function whose first argument is the module it was traced from."""
    for node in graph.nodes:
        if node.name == "self":  # a child of that name (BertAttention): the variable would hide the module
            node._rename("child_self")
    code = graph.python_code("self")
    filename = f"<{name}>"
    namespace = dict(code.globals)
    exec(compile(code.src, filename, "exec"), namespace)
    linecache.cache[filename] = (len(code.src), None, code.src.splitlines(True), filename)
    return namespace["forward"]
