"""What Python has decided by in a forward: a graph holds as long as it decides the same, which guards check."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx

from .node_kinds import is_metadata, upstream

GuardOutcomes = tuple[bool, ...]  # how the conditions of a forward that no call has shown turned out, in order
MOST_OUTCOMES = 32
MOST_ALIKE = 4  # errors of one line, after which no other outcomes are tried
READINGS: dict[str, Callable[[Any], Any]] = {
    "bool": bool,
    "int": int,
    "index": operator.index,
    "float": float,
    "len": len,
    "keys": tuple,
    "value": lambda value: value,
    "is_none": lambda value: value is None,
}


class GuardFailed(Exception):
    """A value is not what it was when the graph that runs was made."""


def check_guard(value: Any, reading: str, expected: Any) -> None:
    """The node of a graph that stands for a place where Python reads a value, as `READINGS` says."""
    if READINGS[reading](value) != expected:
        raise GuardFailed(f"{reading} of a value is not {expected!r}")


def check_passed_on(value: Any, given: Any) -> None:
    """The node of a graph where a child returned what it was given, so that others read what it was given."""
    if value is not given and not (isinstance(given, (tuple, list)) and value == given):
        raise GuardFailed("a child does not return what it was given")


def is_guard(node: fx.Node) -> bool:
    return node.target in (check_guard, check_passed_on)


def has_guards(graph: fx.Graph) -> bool:
    return any(map(is_guard, graph.nodes))


def depends_on_metadata_only(node: fx.Node) -> bool:
    """Whether the shapes and dtypes of tensors determine the value of a node."""
    if is_metadata(node):
        return True
    if node.op not in ("call_function", "call_method") or not node.all_input_nodes:
        return False
    return all(depends_on_metadata_only(source) for source in node.all_input_nodes)


def guard_early(graph: fx.Graph) -> None:
    """Move guards to the front where they read nothing that the forward computes: then they fail before it runs.

    Those of the length of what a child returned follow the call: where Python has read it may be behind an add.
    """
    for guard in [node for node in graph.nodes if node.target is check_guard and node.args[1] in ("len", "keys")]:
        (source,) = guard.all_input_nodes
        items = all(user.target is operator.getitem or is_guard(user) for user in source.users)
        if source.op == "call_module" and items:
            source.append(guard)
    anchor = next(node for node in graph.nodes if node.op != "placeholder")
    order = {node: place for place, node in enumerate(graph.nodes)}
    moved: set[fx.Node] = set()
    for guard in [node for node in graph.nodes if is_guard(node)]:
        needed = upstream(guard)
        if all(node.op == "placeholder" or node is guard or depends_on_metadata_of_inputs(node) for node in needed):
            for node in sorted(needed - moved, key=order.__getitem__):
                if node.op != "placeholder" and node is not anchor:
                    anchor.prepend(node)
                elif node is anchor:
                    anchor = anchor.next
            moved |= needed


def depends_on_metadata_of_inputs(node: fx.Node) -> bool:
    """Whether a node reads shapes and dtypes of arguments, or arguments that are numbers, and nothing else."""
    if node.op == "placeholder":
        return bool(node.meta.get("is_number"))
    if is_metadata(node):
        return all(s.op == "placeholder" or depends_on_metadata_of_inputs(s) for s in node.all_input_nodes)
    if node.op not in ("call_function", "call_method") or not node.all_input_nodes:
        return False
    return all(depends_on_metadata_of_inputs(source) for source in node.all_input_nodes)


def late_guards(graph: fx.Graph) -> bool:
    """Whether guards come after something was computed: a run may then stop half-way."""
    computed = False
    for node in graph.nodes:
        if is_guard(node) and computed:
            return True
        computed |= node.op != "placeholder" and not is_guard(node) and not depends_on_metadata_of_inputs(node)
    return False
