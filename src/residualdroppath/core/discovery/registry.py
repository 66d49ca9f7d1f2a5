"""Blocks that cannot be traced: their forward, written once with its residual adds named."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn


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
    """The call that would register the class of `block`, filled in as if all its children were one branch."""
    children = (
        [name for name, child in block.named_children() if any(True for _ in child.parameters())] if block else []
    )
    children = children or ["branch"]
    computed = functools.reduce(lambda inner, name: f"block.{name}({inner})", children, "x")
    roots = ", ".join(f'"{name}"' for name in children)
    return (
        f"residualdroppath.register_block({type(block).__name__ if block is not None else 'MyBlock'}, "
        f'lambda block, add, x: add("{children[0]}", x, lambda x: {computed}, x), {{"{children[0]}": [{roots}]}})'
    )
