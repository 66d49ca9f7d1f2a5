"""Traced forwards as modules that need torch alone, in a process without this package too.

`fx.GraphModule` is saved as code, which is traced again when it is loaded. So that it is the same then, all that the
graph computes depends on an argument of it: functions of Python and of other libraries are `fx.wrap`ped, and what is
no parameter is read together with an argument.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..torch_internals import CHILDREN, assert_in_graph, own_children
from .call_form import CallForm, defaults
from .shape_guards import check_guard, check_passed_on, depends_on_metadata_only
from .trace_errors import UntraceableError

HOLDER = "standalone_values"  # child with the mode, and with tensors that are not in the state
KEPT_ATTRIBUTES = "_user_preserved_attributes"  # of `GraphModule.meta`: what its copies keep
IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
READINGS: dict[str, Callable[..., Any]] = {
    "bool": bool,
    "int": int,
    "index": operator.index,
    "float": float,
    "len": len,
    "keys": tuple,
}
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
                self.require(self.equal(_wrapped(self.graph, len, node), len(names)), "another number of arguments")
            else:
                self.require(self.equal(_wrapped(self.graph, sorted, node), sorted(names)), "other arguments")
            for key, name in names.items():
                checks.append((self.graph.call_function(operator.getitem, (node, key)), name))
        for node, name in checks:
            self.check_argument(node, name)

    def check_argument(self, node: fx.Node, name: str) -> None:
        if name in self.form.values:
            self.given[name] = node
            self.require(_wrapped(self.graph, operator.is_not, node, None), f"{name}=None")
            return
        constant = self.writable(name, self.form.constants[name])
        if constant is None or isinstance(constant, bool):
            same = _wrapped(self.graph, operator.is_, node, constant)
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
            same = _wrapped(graph, operator.contains, (given,), value)  # the same object, or equal
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
            both = _wrapped(self.graph, tuple, (node, _argument(self.graph)))
            return self.graph.call_function(operator.getitem, (both, 0))
        self.graph.erase_node(node)
        return _held(self.graph, target)

    # Assertions

    def guard(self, value: fx.Node, reading: str, expected: Any) -> None:
        if reading == "is_none":
            condition = _wrapped(self.graph, operator.is_ if expected else operator.is_not, value, None)
        elif reading == "value":
            condition = self.equal(value, expected)
        else:
            condition = self.equal(_wrapped(self.graph, READINGS[reading], value), expected)
        self.require(condition, f"values by which it decides otherwise ({reading} is not {expected!r})")

    def equal(self, node: fx.Node, value: Any) -> fx.Node:
        return self.graph.call_function(operator.eq, (node, value))

    def require(self, condition: fx.Node, otherwise: str) -> None:
        message = f"The pruned {self.title} was called with {otherwise}, which its graph does not serve; {OTHER_CALL}."
        self.graph.call_function(assert_in_graph, (condition, message))


def merged(in_training: fx.Graph, in_evaluation: fx.Graph, title: str) -> fx.Graph:
    """One graph for both modes: constants that differ are chosen by the mode of the module. Consumes the graphs.

    Where more differs, it is the one of evaluation, with an assertion that the module is in that mode.
    """
    counterparts: dict[fx.Node, fx.Node] = {}
    pairs = list(zip(in_training.nodes, in_evaluation.nodes, strict=False))
    chosen: list[tuple[fx.Node, Any]] = []
    same = len(in_training.nodes) == len(in_evaluation.nodes)
    for ours, other in pairs if same else ():
        counterparts[ours] = other
        try:
            both = ((ours.args, ours.kwargs), (other.args, other.kwargs))
            chosen.append((other, _both(*both, counterparts)))
        except _Differ:
            same = False
        same &= (ours.op, ours.target) == (other.op, other.target)
    if not same:
        with _after_placeholders(in_evaluation):
            evaluates = _wrapped(in_evaluation, operator.not_, _held(in_evaluation, "training"))
            message = (
                f"The pruned {title} runs in evaluation mode alone: its forward does other operations in training "
                "mode. Call `eval()`."
            )
            in_evaluation.call_function(assert_in_graph, (evaluates, message))
        return in_evaluation
    mode: list[fx.Node] = []

    def select(value: Any) -> Any:
        if not isinstance(value, _Choice):
            return value
        if not mode:
            with _after_placeholders(in_evaluation):
                mode.append(_held(in_evaluation, "training"))
        if value.of_modes == (False, True):
            return mode[0]
        values = _wrapped(in_evaluation, tuple, (*value.of_modes, mode[0]))
        return in_evaluation.call_function(operator.getitem, (values, mode[0]))

    for node, arguments in chosen:
        with in_evaluation.inserting_before(node):
            node.args, node.kwargs = _mapped(arguments, select)
    return in_evaluation


class _Differ(Exception):
    """Two graphs differ in more than constants."""


class _Choice:
    def __init__(self, in_evaluation: Any, in_training: Any):
        self.of_modes = in_evaluation, in_training


def _both(in_training: Any, in_evaluation: Any, counterparts: Mapping[fx.Node, fx.Node]) -> Any:
    """The arguments of evaluation with a `_Choice` in the place of constants that differ."""
    if isinstance(in_training, fx.Node):
        if counterparts.get(in_training) is not in_evaluation:
            raise _Differ
        return in_evaluation
    if isinstance(in_evaluation, fx.Node):
        raise _Differ
    if isinstance(in_training, (tuple, list)) and isinstance(in_evaluation, (tuple, list)):
        if len(in_training) != len(in_evaluation):
            raise _Differ
        items = (_both(t, e, counterparts) for t, e in zip(in_training, in_evaluation, strict=True))
        return tuple(items) if isinstance(in_evaluation, tuple) else list(items)
    if isinstance(in_training, dict) and isinstance(in_evaluation, dict):
        if list(in_training) != list(in_evaluation):
            raise _Differ
        return {key: _both(in_training[key], in_evaluation[key], counterparts) for key in in_training}
    if isinstance(in_training, slice) and isinstance(in_evaluation, slice):
        training, evaluation = ((s.start, s.stop, s.step) for s in (in_training, in_evaluation))
        return slice(*_both(training, evaluation, counterparts))
    if type(in_training) is type(in_evaluation) and in_training == in_evaluation:
        return in_evaluation
    return _Choice(in_evaluation, in_training)


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(item, function) for item in value)
    if isinstance(value, dict):
        return {key: _mapped(item, function) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_mapped(item, function) for item in (value.start, value.stop, value.step)))
    return function(value)


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


def _held(graph: fx.Graph, target: str) -> fx.Node:
    """The mode of the module (`"training"`), or a tensor of it, read from the holder."""
    holder = graph.create_node("get_attr", HOLDER)
    node = _wrapped(graph, getattr, holder, _held_name(target), _argument(graph))
    node.meta["held"] = target
    return node


def _held_name(target: str) -> str:
    return target.replace(".", "_")


def _argument(graph: fx.Graph) -> fx.Node:
    """An argument of the forward, by which something is known not to be a constant."""
    first = next(iter(graph.nodes), None)
    if first is None or first.op != "placeholder":
        raise UntraceableError("its forward has no arguments")
    return first


def _wrapped(graph: fx.Graph, function: Callable[..., Any], *args: Any) -> fx.Node:
    node = graph.call_function(function, args)
    node.meta["is_wrapped"] = True
    return node


@contextmanager
def _after_placeholders(graph: fx.Graph) -> Iterator[None]:
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
        yield


def _is_of_torch(function: Any) -> bool:
    """Whether code names the function by its full name, as `torch.add`, so that it need not be imported."""
    if (home := getattr(function, "__module__", None)) is not None:
        return home.partition(".")[0] == "torch"
    name = getattr(function, "__name__", "")
    return any(getattr(place, name, None) is function for place in (torch, nn.functional))
