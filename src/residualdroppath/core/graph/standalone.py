"""Traced forwards as graphs that need torch alone: all arguments, and assertions in the place of guards."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from ..torch_internals import assert_in_graph
from .call_form import CallForm, defaults
from .graph_modules import argument, held, wrapped
from .shape_guards import READINGS, check_guard, check_passed_on, depends_on_metadata_only
from .trace_errors import UntraceableError

IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
OTHER_CALL = "prune again with `example=`, a batch as the network is called with now"


def standalone_graph(graph: fx.Graph, form: CallForm, module: nn.Module) -> fx.Graph:
    """The graph with all arguments of the forward, and with assertions in the place of guards.

    Constants of the form are defaults, each asserted to be what the trace has seen.
    """
    return _Standalone(form, module).of(graph)


class _Standalone:
    def __init__(self, form: CallForm, module: nn.Module):
        self.form = form
        self.module = module
        self.state = module.state_dict().keys()
        self.title = type(module).__name__
        self.graph = fx.Graph()
        self.given: dict[str, fx.Node] = {}  # by name, values of the form

    def of(self, graph: fx.Graph) -> fx.Graph:
        self.take_arguments()
        copies: dict[fx.Node, Any] = {}
        for node in graph.nodes:
            copies[node] = self.copied(node, copies)
        self.graph.lint()
        return self.graph

    # Arguments

    def take_arguments(self) -> None:
        signature, form = self.form.signature, self.form
        optional = defaults(signature)
        rest = {**form.constants, **dict.fromkeys(form.values)}
        checks: list[tuple[fx.Node, str]] = []
        packed: list[tuple[fx.Node, Mapping[Any, str], str]] = []  # node of all, names by key, what is read of them
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                elements: dict[Any, str] = {}
                while (element := f"{name}_{len(elements)}") in rest:
                    elements[len(elements)] = element
                    del rest[element]
                if elements:
                    packed.append((self.graph.placeholder(f"*{name}"), elements, "len"))
            elif parameter.kind is parameter.VAR_KEYWORD:
                keys = {key: key for key in rest if key not in signature.parameters}
                packed.append((self.graph.placeholder(f"**{name}"), keys, "keys"))
            else:
                rest.pop(name, None)
                default = (self.writable(name, optional[name]),) if name in optional else ()
                checks.append((self.graph.create_node("placeholder", name, default), name))
        for node, names, reading in packed:
            if reading == "len":
                self.require(self.equal(wrapped(self.graph, len, node), len(names)), "another number of arguments")
            else:
                self.require(self.equal(wrapped(self.graph, sorted, node), sorted(names)), "other arguments")
            for key, name in names.items():
                checks.append((self.graph.call_function(operator.getitem, (node, key)), name))
        for node, name in checks:
            self.check_argument(node, name)

    def check_argument(self, node: fx.Node, name: str) -> None:
        if name in self.form.values:
            self.given[name] = node
            self.require(wrapped(self.graph, operator.is_not, node, None), f"{name}=None")
            return
        constant = self.writable(name, self.form.constants[name])
        if constant is None or isinstance(constant, bool):
            same = wrapped(self.graph, operator.is_, node, constant)
        else:
            same = self.equal(node, constant)
        self.require(same, f"another {name} than {constant!r}")

    def writable(self, name: str, value: Any) -> Any:
        """The value, if the code of a function can hold it."""
        items = value if isinstance(value, tuple) else (value,)
        if all(item is None or isinstance(item, (bool, int, float, str, torch.dtype)) for item in items):
            return value
        raise UntraceableError(f"its argument {name} is {value!r}, which saved code cannot hold")

    # Nodes

    def copied(self, node: fx.Node, copies: Mapping[fx.Node, Any]) -> Any:
        graph = self.graph
        if node.op == "placeholder":
            return self.given[str(node.target)]
        if node.op == "get_attr":
            return self.attribute(str(node.target))
        if node.target is check_guard:
            value, reading, expected = node.args
            self.guard(copies[value], str(reading), expected)  # pyright: ignore[reportArgumentType]
            return None
        if node.target is check_passed_on:
            value, given = (copies[source] for source in node.all_input_nodes)
            same = wrapped(graph, operator.contains, (given,), value)  # the same object, or equal
            self.require(same, "a child that does not return what it was given")
            return None
        if getattr(node.target, "__module__", "").split(".")[0] == __name__.split(".")[0]:
            raise UntraceableError(f"its graph needs {node.target}, which is part of residualdroppath")
        copy = graph.node_copy(node, copies.__getitem__)
        copy.meta = {}
        if copy.name == "self":
            copy._rename("child_self")
        if node.op == "call_function":
            if node.target in IN_PLACE and not depends_on_metadata_only(node):
                copy.op, copy.target = "call_method", f"__{node.target.__name__}__"  # pyright: ignore
            elif not _is_of_torch(node.target):
                copy.meta["is_wrapped"] = True
        if node.meta.get("returned") and node.users:
            self.guard(copy, "is_none", False)
        return copy

    def attribute(self, target: str) -> fx.Node:
        value = operator.attrgetter(target)(self.module)
        node = self.graph.create_node("get_attr", target)
        if isinstance(value, nn.Parameter):
            return node
        if target in self.state:
            both = wrapped(self.graph, tuple, (node, argument(self.graph)))
            return self.graph.call_function(operator.getitem, (both, 0))
        self.graph.erase_node(node)
        return held(self.graph, target)

    # Assertions

    def guard(self, value: fx.Node, reading: str, expected: Any) -> None:
        if reading == "is_none":
            condition = wrapped(self.graph, operator.is_ if expected else operator.is_not, value, None)
        elif reading == "value":
            condition = self.equal(value, expected)
        else:
            condition = self.equal(wrapped(self.graph, READINGS[reading], value), expected)
        self.require(condition, f"values by which it decides otherwise ({reading} is not {expected!r})")

    def equal(self, node: fx.Node, value: Any) -> fx.Node:
        return self.graph.call_function(operator.eq, (node, value))

    def require(self, condition: fx.Node, otherwise: str) -> None:
        message = f"The pruned {self.title} was called with {otherwise}, which its graph does not serve; {OTHER_CALL}."
        self.graph.call_function(assert_in_graph, (condition, message))


def _is_of_torch(function: Any) -> bool:
    """Whether code names the function by its full name, as `torch.add`, so that it need not be imported."""
    if (home := getattr(function, "__module__", None)) is not None:
        return home.partition(".")[0] == "torch"
    name = getattr(function, "__name__", "")
    return any(getattr(place, name, None) is function for place in (torch, nn.functional))
