"""A block's forward with a residual unit in the place of each residual add."""

from __future__ import annotations

import functools
import linecache
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from .branch_nodes import ResidualAdd
from .nodes import is_inplace
from .unit import Junction, ResidualUnit

VIEW_METHODS = ("view", "reshape", "permute", "transpose", "flatten", "unflatten", "contiguous", "squeeze", "unsqueeze")


def rewrite(
    graph: fx.Graph,
    block: nn.Module,
    adds: Mapping[str, ResidualAdd],
    units: Mapping[str, ResidualUnit],
    *,
    output_may_be_overwritten: bool,
    compile_options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """A function like `type(block).forward`, its residual adds (by branch name) left to `units`.

    Modules and parameters are looked up on the block at every call. With `compile_options` each branch
    is compiled by itself: what is dropped is decided outside of its graphs. Consumes `graph`.
    """
    for name, add in adds.items():
        branch, inputs = _branch_function(add, block, name)
        if compile_options is not None:
            branch = torch.compile(branch, **compile_options)
        node = add.node
        junction = Junction(
            unit=units[name],
            run=functools.partial(branch, block),
            add=_add_as_written(node, add.branch_operand),
            copies=_hands_on_unsafely(add, block, output_may_be_overwritten),
            overwrites_shortcut=_overwrites_shortcut(add, block),
        )
        with graph.inserting_before(node):
            call = graph.call_function(
                _named_function(junction, f"residual_unit_{junction.unit.index}"), (add.shortcut, *inputs)
            )
        node.replace_all_uses_with(call)
        graph.erase_node(node)
        for member in reversed(add.nodes):
            graph.erase_node(member)
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
    return _function_of(graph, f"residual_branch_{type(block).__name__}_{id(graph)}"), inputs


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


def _hands_on_unsafely(add: ResidualAdd, block: nn.Module, output_may_be_overwritten: bool) -> bool:
    """Whether what follows the add may overwrite the shortcut, were it handed on itself.

    It may be the block's input, which others still read or the layer before has saved for its
    backward. What a convolution, linear layer or batch norm returned is nobody else's.
    """
    shortcut = add.shortcut
    if _overwrites_shortcut(add, block):
        return False
    if shortcut.op == "call_module" and len(shortcut.users) == 1:
        last = block.get_submodule(str(shortcut.target))
        while isinstance(last, nn.Sequential) and len(last) > 0:
            last = last[-1]
        if isinstance(last, (_ConvNd, nn.Linear, _BatchNorm)) and type(last).__module__.startswith("torch.nn"):
            return False
    return _may_be_overwritten(add.node, block, output_may_be_overwritten)


def _overwrites_shortcut(add: ResidualAdd, block: nn.Module) -> bool:
    return is_inplace(add.node, block) and add.branch_operand == 1


def _may_be_overwritten(node: fx.Node, block: nn.Module, output_may_be_overwritten: bool) -> bool:
    for user in node.users:
        if user.op == "output":
            overwritten = output_may_be_overwritten
        elif user.all_input_nodes[0] is node and is_inplace(user, block):
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
