"""Blocks that cannot be traced: their forward, written once with its residual adds named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class RegisteredBlock:
    """`forward(block, add, *args, **kwargs)` and, by branch name, the children that belong to the branch."""

    forward: Callable[..., Any]
    branches: Mapping[str, tuple[str, ...]]


_REGISTERED: dict[type[nn.Module], RegisteredBlock] = {}


def register_block(
    block_class: type[nn.Module], forward: Callable[..., Any], branches: Mapping[str, Sequence[str]]
) -> None:
    """Tell how a block class that cannot be traced adds its residual branches.

    Args:
        block_class: the class; subclasses are not included.
        forward: the block's training forward as `forward(block, add, *args, **kwargs)`, each residual
            add written as `add(name, shortcut, branch, *inputs)`, which stands for
            `shortcut + branch(*inputs)` and runs `branch` only where the plan wants it.
        branches: for each `name` the children (attribute names, dotted for deeper ones) or parameters
            that the branch alone uses.

    Example:
        >>> def forward(block, add, x):
        ...     return add("mlp", x, lambda x: block.mlp(block.norm(x)), x)
        >>> register_block(MyBlock, forward, {"mlp": ["norm", "mlp"]})
    """
    if not (isinstance(block_class, type) and issubclass(block_class, nn.Module)):
        raise TypeError(
            f"`block_class` must be a subclass of torch.nn.Module, got {block_class!r}; pass the class itself."
        )
    if not branches:
        raise ValueError("`branches` must name at least one branch and its children, got none.")
    _REGISTERED[block_class] = RegisteredBlock(forward, {name: tuple(children) for name, children in branches.items()})


def registered_block(module: nn.Module) -> RegisteredBlock | None:
    """What is registered for the class of `module`, or None."""
    return _REGISTERED.get(type(module))
