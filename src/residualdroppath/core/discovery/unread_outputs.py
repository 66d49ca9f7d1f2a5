"""Values that a forward returns and nobody reads: what computes them alone need not run."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

from ..graph.graph_code import copy_of
from ..graph.node_kinds import is_inplace, upstream

# To be left in, though nobody reads it.
RANDOM = ("dropout", "rand", "bernoulli", "multinomial", "check_guard", "check_passed_on", "assert")


def leave_out_unread(
    graph: fx.Graph, module: nn.Module, outputs_read: frozenset[int] | None, *, shortens: bool = False
) -> fx.Graph:
    """The graph, or where it returns values that nobody reads, one that returns None in their place.

    If it `shortens`, unread values of unknown number at the end are left out: then it is not to run, for callers may
    unpack what they do not read.
    """
    if outputs_read is None:
        return graph
    (output,) = (node for node in graph.nodes if node.op == "output")
    returned, rest = _first_values(output.args[0]) if shortens else (output.args[0], [])
    if not isinstance(returned, (tuple, list)) or (rest and not all(i < len(returned) for i in outputs_read)):
        return graph
    unread = [v for i, v in enumerate(returned) if i not in outputs_read and isinstance(v, fx.Node)] + rest
    if not unread:
        return graph
    left, copies = copy_of(graph)
    (output,) = (node for node in left.nodes if node.op == "output")
    kept = (v if i in outputs_read else None for i, v in enumerate(returned))
    output.args = (type(returned)(copies[v] if isinstance(v, fx.Node) else v for v in kept),)
    served = {copies[node] for value in unread for node in upstream(value)}
    for node in reversed(left.nodes):
        if node in served and not node.users and node.op in ("call_function", "call_method"):
            if not is_inplace(node, module) and not any(word in str(node.target) for word in RANDOM):
                left.erase_node(node)
    return left


def _first_values(returned: Any) -> tuple[Any, list[fx.Node]]:
    """What a forward returns and, if it adds values of unknown number to a tuple of its own, that sum."""
    if (
        isinstance(returned, fx.Node)
        and returned.target is operator.add
        and isinstance(returned.args[0], (tuple, list))
    ):
        return returned.args[0], [returned]
    return returned, []
