"""What nodes say of shapes that no call has shown, where tensors are taken to have some number of dimensions."""

from __future__ import annotations

import operator

import torch
from torch import fx

RANKS = (3, 4, 2, 5)


def is_size(node: fx.Node) -> bool:
    """Whether the node is a number of a shape, or computed from such and from numbers of the forward."""
    if (node.op, node.target) in (("call_method", "size"), ("call_method", "numel")):
        return len(node.args) == 2 or node.target == "numel"
    if node.target is operator.getitem:
        return isinstance(node.args[1], int) and length_of(node.all_input_nodes[0], RANKS[0]) is not None
    arithmetic = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)
    return node.target in arithmetic and all(map(is_size, node.all_input_nodes))


def length_of(node: fx.Node, rank: int) -> int | None:
    """The length of the shape of a tensor of this rank, of a slice of it, or of chunks; None for other nodes."""
    if node.target is operator.getitem and isinstance(node.args[1], slice):
        inner = length_of(node.all_input_nodes[0], rank)
        return None if inner is None or len(node.all_input_nodes) > 1 else len(range(inner)[node.args[1]])
    if (node.op, node.target) == ("call_method", "size") and len(node.args) == 1 and not node.kwargs:
        return rank
    if node.target is getattr and node.args[1:] == ("shape",):
        return rank
    if node.target in ("chunk", torch.chunk):
        number = node.kwargs.get("chunks", node.args[1] if len(node.args) > 1 else None)
        return number if isinstance(number, int) else None
    return None


def number_of_dimensions(node: fx.Node, rank: int) -> int | None:
    """What `x.dim()` and its like are, plus or minus numbers of the forward; None for other nodes."""
    if (node.op == "call_method" and node.target in ("dim", "ndimension")) or (
        node.target is getattr and node.args[1] == "ndim"
    ):
        return rank
    if node.target is len:
        return length_of(node.all_input_nodes[0], rank)
    if node.target in (operator.add, operator.sub) and len(node.all_input_nodes) == 1 and isinstance(node.args[1], int):
        inner = number_of_dimensions(node.all_input_nodes[0], rank)
        return (
            None if inner is None else (inner + node.args[1] if node.target is operator.add else inner - node.args[1])
        )
    return None
