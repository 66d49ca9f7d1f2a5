"""Which arguments a child reads the values of: a position embedding may read no more than the length of a sequence."""

from __future__ import annotations

import inspect
from typing import Any

from torch import fx, nn
from torch.fx.node import map_arg

from ..graph.call_form import form_of, forward_signature, numbers_in
from ..graph.node_kinds import METADATA_ATTRIBUTES, METADATA_METHODS, is_layer_of_torch, is_used
from ..graph.trace_errors import UntraceableError
from ..graph.tracing import trace_unknown
from ..torch_internals import child_at


def unread_arguments(module: nn.Module, call: fx.Node) -> set[fx.Node]:
    """Of the arguments of a child's call, those of which its forward reads the shape or dtype alone."""
    child = child_at(module, str(call.target))
    if is_layer_of_torch(child) or not _may_read_metadata(child):
        return set()
    form, values = form_of(forward_signature(child), call.args, call.kwargs)
    try:
        graph = trace_unknown(child, form, numbers_in(values)).graph
    except UntraceableError:
        return set()
    read = {str(node.target) for node in graph.nodes if node.op == "placeholder" and is_used(node)}
    others = {node for name in read for node in _nodes_in(values[name])}
    return {node for value in values.values() for node in _nodes_in(value)} - others


def _may_read_metadata(child: nn.Module) -> bool:
    """Whether the code of the forward names a shape or its like; cheap, so that few children have to be traced."""
    names = inspect.unwrap(type(child).forward).__code__.co_names
    return not {*METADATA_ATTRIBUTES, *METADATA_METHODS}.isdisjoint(names)


def _nodes_in(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    map_arg(value, found.append)
    return found
