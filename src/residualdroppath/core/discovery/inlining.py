"""Which children are a part of their caller's graph: those whose add is a residual add of the caller."""

from __future__ import annotations

from torch import fx, nn

from ..graph.node_kinds import is_add
from ..graph.tracing import inline_where
from .residual_rule import find_residual_adds


def is_inlined(graph: fx.Graph, module: nn.Module) -> bool:
    """Whether a traced forward adds two values that it is given, as `BertOutput(hidden_states, input_tensor)` does.

    A forward with a residual add of its own is a block by itself, what else it adds (`h + time_embedding`) a detail.
    """
    return adds_two_arguments(graph) and not find_residual_adds(graph, module)[0]


def adds_two_arguments(graph: fx.Graph) -> bool:
    """Whether the two sides of some add are computed from different arguments."""
    given = {node: {node} if node.op == "placeholder" else set() for node in graph.nodes}
    for node in graph.nodes:
        for source in node.all_input_nodes:
            given[node] |= given[source]
        if is_add(node):
            first, second = (given[operand] for operand in node.all_input_nodes)
            if first and second and first.isdisjoint(second):
                return True
    return False


inline_where(is_inlined)
