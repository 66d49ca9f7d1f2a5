"""Which children are a part of their caller's graph.

Those whose add is a residual add of the caller, and those that return both the start of the caller's shortcut and that
of its branch, as the body of a pre-activation block that is projected after its first norm.
"""

from __future__ import annotations

from torch import fx, nn

from ..graph.node_kinds import is_add, is_item
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


def parts_to_see(graph: fx.Graph, module: nn.Module) -> list[str]:
    """Children of which the two sides of some add are different outputs."""
    several = any(sum(map(is_item, node.users)) > 1 for node in graph.nodes if node.op == "call_module")
    if not several or not any(map(is_add, graph.nodes)):
        return []
    others = find_residual_adds(graph, module)[1]
    return [name for other in others for name in other.returned_by]


def is_worth(graph: fx.Graph, module: nn.Module, before: fx.Graph, inlined: set[nn.Module]) -> bool:
    """Whether further adds of the caller are residual where such children are inlined, and none of the children's."""
    paths = {name for name, child in module.named_modules() if child in inlined}
    found = [add.node for add in find_residual_adds(graph, module)[0]]
    inside = [node for node in found if not paths.isdisjoint(node.meta.get("nn_module_stack", {}))]
    return not inside and len(found) > len(find_residual_adds(before, module)[0])


inline_where(is_inlined, parts_to_see, is_worth)
