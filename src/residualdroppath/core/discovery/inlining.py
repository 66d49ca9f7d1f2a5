"""Which children are a part of their caller's graph.

Those whose add is a residual add of the caller, and those that return more than a branch: the start of the shortcut,
as the body of a pre-activation block that is projected after its first norm, or what later layers share, as the
attention that makes the position bias.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import fx, nn

from ..graph.node_kinds import is_add, is_item, num_layers
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
    """Children that return several values, of which some add has one and something else another."""
    several = any(any(map(is_item, node.users)) for node in graph.nodes if node.op == "call_module")
    if not several or not any(map(is_add, graph.nodes)):
        return []
    others = find_residual_adds(graph, module)[1]
    return [name for other in others for name in other.returned_by]


def is_worth(graph: fx.Graph, module: nn.Module, before: fx.Graph, inlined: Collection[str]) -> bool:
    """Whether inlining shows further residual adds of the caller, none of the children, and branches lose no layer."""
    found = find_residual_adds(graph, module)[0]
    if any(not set(inlined).isdisjoint(add.node.meta.get("nn_module_stack", {})) for add in found):
        return False
    cut_off = {name for add in found for name in add.cut_off if any(name.startswith(f"{path}.") for path in inlined)}
    calls = [node for node in graph.nodes if str(node.target) in cut_off]
    return len(found) > len(find_residual_adds(before, module)[0]) and not any(num_layers(module, n) for n in calls)


inline_where(is_inlined, parts_to_see, is_worth)
