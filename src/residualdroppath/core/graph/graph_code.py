"""Graphs as functions of Python, whose first argument is a module like the one that was traced."""

from __future__ import annotations

import linecache
import types
from collections.abc import Mapping
from typing import Any

from torch import fx


def copy_of(graph: fx.Graph) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """The same graph, and its nodes by those of the original."""
    copied = fx.Graph()
    nodes: dict[fx.Node, fx.Node] = {}
    copied.output(copied.graph_copy(graph, nodes))
    return copied, nodes


def function_of(graph: fx.Graph, name: str) -> types.FunctionType:
    """The graph as a function."""
    return function_of_code(*code_of(graph, name))


def code_of(graph: fx.Graph, name: str) -> tuple[types.CodeType, dict[str, Any]]:
    """The code of that function, and the functions and other values that it names."""
    for node in graph.nodes:
        if node.name == "self":  # a child of that name (BertAttention): the variable would hide the module
            node._rename("child_self")
    code = graph.python_code("self")
    filename = f"<{name}>"
    linecache.cache[filename] = (len(code.src), None, code.src.splitlines(True), filename)
    return compile(code.src, filename, "exec"), dict(code.globals)


def function_of_code(code: types.CodeType, names: Mapping[str, Any]) -> types.FunctionType:
    """A function of its own from what `code_of` returns, whatever its names stand for."""
    namespace = dict(names)
    exec(code, namespace)
    return namespace["forward"]


def with_code_of_its_own(function: Any) -> types.FunctionType:
    """The same function; what compilers keep by code is not shared."""
    return types.FunctionType(function.__code__.replace(), function.__globals__)
