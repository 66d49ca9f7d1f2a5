"""Blocks that cannot be traced: their forward, written once with its residual adds named."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..graph.call_form import forward_signature, plainest_form
from ..graph.node_kinds import is_matrix


@dataclass(frozen=True)
class RegisteredBlock:
    """`forward(block, add, *args, **kwargs)` and, by branch name, the children that belong to the branch."""

    forward: Callable[..., Any]
    branches: Mapping[str, Sequence[str]] | Callable[[Any], Mapping[str, Sequence[str]]]

    def branches_of(self, block: nn.Module) -> dict[str, tuple[str, ...]]:
        branches = self.branches(block) if callable(self.branches) else self.branches
        return {name: tuple(children) for name, children in branches.items()}


_REGISTERED: dict[type[nn.Module] | str, RegisteredBlock] = {}


def register_block(
    block_class: type[nn.Module] | str,
    forward: Callable[..., Any],
    branches: Mapping[str, Sequence[str]] | Callable[[Any], Mapping[str, Sequence[str]]],
) -> None:
    """Register how a block class that cannot be traced adds its residual branches.

    Counts for every ResidualDropPath constructed afterwards.

    Args:
        block_class: the class, or its full name (`"package.module.MyBlock"`) so as not to import it;
            subclasses are not included.
        forward: the block's training forward as `forward(block, add, *args, **kwargs)`, each residual
            add written as `add(name, shortcut, branch, *inputs)`, which stands for
            `shortcut + branch(*inputs)` and runs `branch` only where the plan wants it. `inputs` are all
            tensors that the branch reads, masks included: with `granularity="sample"` the branch of a
            single input gets some of its rows.
        branches: for each `name` the children (attribute names, dotted for deeper ones) or parameters
            that the branch alone uses, its drop path included; or a function from a block to that, where blocks differ.

    Example:
        >>> def forward(block, add, x):
        ...     return add("mlp", x, lambda x: block.mlp(block.norm(x)), x)
        >>> register_block(MyBlock, forward, {"mlp": ["norm", "mlp"]})
    """
    if not isinstance(block_class, str) and not (isinstance(block_class, type) and issubclass(block_class, nn.Module)):
        raise TypeError(
            f"`block_class` must be a subclass of torch.nn.Module, got {block_class!r}; pass the class itself."
        )
    if not branches:
        raise ValueError("`branches` must name at least one branch and its children, got none.")
    _REGISTERED[block_class] = RegisteredBlock(forward, branches)


def registered_block(module: nn.Module) -> RegisteredBlock | None:
    """What is registered for the class of `module`, or None."""
    block_class = type(module)
    by_name = _REGISTERED.get(f"{block_class.__module__}.{block_class.__qualname__}")
    return _REGISTERED.get(block_class, by_name)


def registering_call(block: nn.Module | None) -> str:
    """A call that registers the class of `block` and runs: what the block adds to its first argument is one branch.

    With it a dropped block returns that argument. Each residual add written out is better, which takes a person.
    """
    if block is None:
        return _call("MyBlock", "x", 'add("branch", x, lambda x: block.branch(x), x)', ["branch"])
    children = [name for name, child in block.named_children() if any(True for _ in child.parameters())]
    own = [name for name, _ in block.named_parameters(recurse=False)]
    parts = children + own or ["branch"]
    with_weights = [name for name in children if any(map(is_matrix, block.get_submodule(name).parameters()))]
    name = [*with_weights, *parts][0]
    signature = forward_signature(block)
    arguments = [*plainest_form(signature).values] or ["x"]
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in signature.parameters.values()):
        arguments = ["x"]
    rest = ", *args, **kwargs" if len(signature.parameters) > len(arguments) else ""
    given = ", ".join(arguments)
    forward = f"type(block).forward(block, {given}{rest}) - {arguments[0]}"
    added = f'add("{name}", {arguments[0]}, lambda {given}: {forward}, {given})'
    return _call(type(block).__name__, given + rest, added, [name, *(part for part in parts if part != name)])


def how_to_register(block: nn.Module | None) -> str:
    """What to do about residual branches in a block that could not be followed, in words."""
    if block is None:
        return (
            f"If it has residual branches, register the class of their block, for instance `{registering_call(None)}`."
        )
    name = type(block).__name__
    written_out = f"If {name} holds residual branches, register it: its forward with each residual add written out"
    if not _returns_one_value(block):
        return (
            f"{written_out} as `add(name, shortcut, branch, *inputs)` (it may return several values, so no call is "
            "filled in here; `help(residualdroppath.register_block)` has an example)."
        )
    help = "`help(residualdroppath.register_block)` has an example"
    return f"{written_out} ({help}) or, as one branch, `{registering_call(block)}`."


def _returns_one_value(block: nn.Module) -> bool:
    """Whether the source of a forward shows that it returns no tuple, list or dict."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(type(block).forward)))
        (function,) = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    except (OSError, TypeError, SyntaxError, ValueError):
        return False
    several = {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and _holds_several(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    return bool(returned) and not any(
        value is None or _holds_several(value) or (isinstance(value, ast.Name) and value.id in several)
        for value in returned
    )


def _holds_several(value: ast.expr) -> bool:
    if isinstance(value, ast.BinOp):
        return _holds_several(value.left) or _holds_several(value.right)
    if isinstance(value, ast.IfExp):
        return _holds_several(value.body) or _holds_several(value.orelse)
    return isinstance(value, (ast.Tuple, ast.List, ast.Dict, ast.Constant))


def _call(block_class: str, arguments: str, added: str, parts: Sequence[str]) -> str:
    roots = ", ".join(f'"{name}"' for name in parts)
    return (
        f"residualdroppath.register_block({block_class}, lambda block, add, {arguments}: {added}, "
        f'{{"{parts[0]}": [{roots}]}})'
    )
