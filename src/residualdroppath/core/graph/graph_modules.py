"""Graphs as modules that are saved and loaded in a process without this package too.

`fx.GraphModule` is saved as code, which is traced again when it is loaded. So that it is the same then, all that the
graph computes depends on an argument of it: functions of Python and of other libraries are `fx.wrap`ped, and what is
no parameter is read together with an argument.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx, nn

from ..torch_internals import CHILDREN, own_children
from .trace_errors import UntraceableError

HOLDER = "standalone_values"  # child with the mode, and with tensors that are not in the state
KEPT_ATTRIBUTES = "_user_preserved_attributes"  # of `GraphModule.meta`: what its copies keep


def graph_module(graph: fx.Graph, module: nn.Module) -> fx.GraphModule:
    """The graph over those parts of `module` that it uses, with the module's own attributes.

    Raises `UntraceableError` where it would not be the same when it is saved and loaded.
    """
    root = _with_holder(graph, module)
    made = fx.GraphModule(root, graph, class_name=type(module).__name__)
    for path, part in made.named_modules():
        if type(part) is nn.Module:  # holds parts of a child whose forward is in the graph
            part.training = module.get_submodule(path).training
    own = {name: value for name, value in vars(module).items() if name not in vars(made) and name != "forward"}
    made.meta[KEPT_ATTRIBUTES] = {name: value for name, value in own.items() if not isinstance(value, Tensor)}
    for name, value in made.meta[KEPT_ATTRIBUTES].items():
        setattr(made, name, value)
    _check_that_it_loads(made)
    return made


def _with_holder(graph: fx.Graph, module: nn.Module) -> nn.Module:
    """The module as the root of a `GraphModule`: a shallow copy with a holder of what the graph reads there."""
    targets = [node.meta["held"] for node in graph.nodes if "held" in node.meta]
    if not targets:
        return module
    holder = nn.Identity().train(module.training)
    for target in dict.fromkeys(targets):
        if target != "training":
            holder.register_buffer(_held_name(target), operator.attrgetter(target)(module), persistent=False)
    root = nn.Module()
    vars(root).update(vars(module))
    vars(root)[CHILDREN] = {**own_children(module), HOLDER: holder}
    return root


def _check_that_it_loads(module: fx.GraphModule) -> None:
    """Loading traces the code again; without copies of the parameters, that is done here."""
    try:
        load, arguments = module.__reduce__()
        loaded = load(*arguments)
    except Exception as error:
        raise UntraceableError(f"its graph cannot be saved: {type(error).__name__}: {error}") from error
    if found := differences(module.graph, loaded.graph):
        raise UntraceableError(f"its graph would not be the same when it is loaded: {found[0]}")


def differences(graph: fx.Graph, other: fx.Graph) -> list[str]:
    """In words, where two graphs do not compute the same."""
    ours, others = ([_described(node, places) for node in g.nodes] for g in (graph, other) for places in [_places(g)])
    found = [f"{mine} is {its}" for mine, its in zip(ours, others, strict=False) if mine != its]
    if not found and len(ours) != len(others):
        found = [f"{len(ours)} operations are {len(others)}"]
    return found


def _places(graph: fx.Graph) -> dict[fx.Node, int]:
    return {node: place for place, node in enumerate(graph.nodes)}


def _described(node: fx.Node, places: Mapping[fx.Node, int]) -> str:
    arguments = fx.map_arg((node.args, node.kwargs), lambda source: f"%{places[source]}")  # pyright: ignore
    return f"{node.op} {getattr(node.target, '__name__', node.target)}{arguments}"


def held(graph: fx.Graph, target: str) -> fx.Node:
    """The mode of the module (`"training"`), or a tensor of it, read from the holder."""
    holder = graph.create_node("get_attr", HOLDER)
    node = wrapped(graph, getattr, holder, _held_name(target), argument(graph))
    node.meta["held"] = target
    return node


def _held_name(target: str) -> str:
    return target.replace(".", "_")


def argument(graph: fx.Graph) -> fx.Node:
    """An argument of the forward, by which something is known not to be a constant."""
    first = next(iter(graph.nodes), None)
    if first is None or first.op != "placeholder":
        raise UntraceableError("its forward has no arguments")
    return first


def wrapped(graph: fx.Graph, function: Callable[..., Any], *args: Any) -> fx.Node:
    node = graph.call_function(function, args)
    node.meta["is_wrapped"] = True
    return node


@contextmanager
def after_placeholders(graph: fx.Graph) -> Iterator[None]:
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
        yield
