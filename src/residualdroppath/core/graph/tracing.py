"""One module's own `forward` as a torch.fx graph; child modules are leaves unless they are inlined.

A trace follows a call: it runs the forward once, with stand-ins for its values, and each operation on the values of
the call too. Where there is no call, only what Python needs no value for can be followed.
"""

from __future__ import annotations

import dataclasses
import operator
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from ..forward_override import forward_beneath
from .call_form import CallForm, form_of, forward_signature, is_plain, plainest_form
from .module_copies import ModuleCopies
from .nested_values import detached_with_originals, map_values, own_objects
from .node_kinds import is_item, is_metadata
from .plain_copies import PlainCopies
from .shape_guards import (
    MOST_OUTCOMES,
    READINGS,
    GuardOutcomes,
    check_guard,
    check_passed_on,
    depends_on_metadata_only,
    guard_early,
)
from .trace_errors import UntraceableError, errors_of_the_forward, is_our_own, refuse_foreign_forward
from .traced_value import UNKNOWN, CannotFollow, Starred, TracedValue, is_stand_in, joined
from .tracing_sandbox import (
    RecordMakers,
    grad_and_autocast,
    numbers_of_python_kept,
    random_states_kept,
    stand_ins_pass_for_values,
)
from .unknown_sizes import RANKS, is_size, length_of, number_of_dimensions

RunChild = Callable[..., Any]
CONSTANTS = (torch.dtype, torch.device, torch.layout, torch.memory_format)  # C code takes no stand-in for these
A_TENSOR = torch.empty(0)


class _Tracer(fx.Tracer):
    def __init__(self, module: nn.Module, outcomes: GuardOutcomes, *, in_training: bool):
        super().__init__()
        self.root = module
        self.graph = fx.Graph()
        self.tensor_attrs = {}
        self.outcomes = outcomes
        self.taken: list[bool] = []
        self.modes = grad_and_autocast()
        self.copies = ModuleCopies(module, self.tensor_at, self.call_child, in_training=in_training)
        self.run_child: RunChild | None = None  # in a call that is followed
        self.may_guess = True  # where none is: what children return
        self.guesses = False
        self.may_hold_objects = False  # in a graph that is read and not run
        self.not_to_run = ""
        self.rank = RANKS[0]  # that tensors are taken to have, where the forward asks for it
        self.uses_rank = False
        self.is_running = False
        self._inside: dict[str, tuple[str, type]] = {}  # paths of children that are inlined
        self._tensors: dict[str, TracedValue] = {}
        self._guarded: set[tuple[fx.Node, str]] = set()
        self._given: dict[fx.Node, list[TracedValue]] = {}  # by call of a child

    # Values

    def tensor_at(self, path: str, tensor: torch.Tensor) -> TracedValue:
        if path not in self._tensors:
            value = tensor.detach() if isinstance(tensor, nn.Parameter) or self.run_child is None else tensor.clone()
            self._tensors[path] = TracedValue(self.create_node("get_attr", path, (), {}), self, value)
        return self._tensors[path]

    def create_proxy(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, kind: str, target: Any, args: Any, kwargs: Any, name: str | None = None, *_: Any
    ) -> Any:
        node = self.create_node(kind, target, self.create_arg(args), self.create_arg(kwargs), name)
        if target is operator.getitem and self.run_child is None and node.all_input_nodes[0].meta.get("returned"):
            node.meta["returned"] = self.guesses = True
        return self.standing_for(node, self._run(kind, target, args, kwargs))

    def standing_for(self, node: fx.Node, value: Any) -> Any:
        if value is None or isinstance(value, CONSTANTS):
            if value is not None or node.op == "call_module":
                self._check(node, *(("is_none", True) if value is None else ("value", value)))
            return value
        return TracedValue(node, self, value)

    def _run(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        (values, named), given = _values_of((args, kwargs))
        if any(value is UNKNOWN for value in given) or (self.run_child is None and not given):
            return UNKNOWN
        with self._running():
            if kind == "call_method":
                return getattr(values[0], target)(*values[1:], **named)
            return target(*values, **named)

    @contextmanager
    def _running(self) -> Iterator[None]:
        before, self.is_running = self.is_running, True
        try:
            yield
        finally:
            self.is_running = before

    def call_child(self, child: nn.Module, copy: nn.Module, path: str, args: Any, kwargs: Any) -> Any:
        if adds_its_inputs(child):
            self._inside[path] = path, type(child)
            try:
                return type(child).forward(copy, *args, **kwargs)
            finally:
                del self._inside[path]
        node = self.create_node("call_module", path, self.create_arg(args), self.create_arg(kwargs))
        self._given[node] = [value for value in _stand_ins((args, kwargs)) if value.node.op != "get_attr"]
        if self.run_child is None:
            node.meta["returned"] = True
            return TracedValue(node, self)
        (values, named), given = _values_of((args, kwargs))
        if any(value is UNKNOWN for value in given):
            return TracedValue(node, self)
        with self._running():
            return self.standing_for(node, self.run_child(child, *values, **named))

    def passed_on(self, returned: TracedValue, key: Any) -> TracedValue | None:
        """The argument of a child that is item `key` of what it returned, such as a bias that later layers share."""
        given = self._given.get(returned.node, ())
        if not given or not isinstance(key, int) or not isinstance(returned.value, (tuple, list)):
            return None
        item = returned.value[key]
        several = isinstance(item, (tuple, list)) and len(item) > 1 and is_plain(tuple(item))
        for value in given:
            if (value.value is item and isinstance(item, torch.Tensor)) or (several and value.value == item):
                taken = self.create_node("call_function", operator.getitem, (returned.node, key), {})
                self.create_node("call_function", check_passed_on, (taken, value.node), {})
                return value
        return None

    # What Python reads

    def to_bool(self, obj: Any) -> bool:
        if obj.value is not UNKNOWN:
            return self.guard(obj, "bool")
        if not depends_on_metadata_only(obj.node):
            raise CannotFollow("it decides by values that only a call shows; pass `example=`")
        self.guesses = True
        place = len(self.taken)
        outcome = self.outcomes[place] if place < len(self.outcomes) else True
        self._check(obj.node, "bool", outcome)
        self.taken.append(outcome)
        return outcome

    def value_like(self, obj: TracedValue) -> Any:
        """A value of the type that an unknown one has, or is taken to have."""
        if depends_on_metadata_only(obj.node):
            if length_of(obj.node, self.rank) is not None:
                return torch.Size(())
            if number_of_dimensions(obj.node, self.rank) is not None or is_size(obj.node):
                return 0
            raise CannotFollow("it looks at the type of a value, which only a call shows; pass `example=`")
        if obj.node.op == "call_module" or is_item(obj.node):
            if not self.may_guess:
                raise CannotFollow("it looks at the type of what a child returned, which only a call shows")
            self.guesses = True
        return A_TENSOR

    def guess_length(self, obj: TracedValue) -> int | None:
        """The length of a shape, of a part of it, or of chunks, that no call has shown; None where nothing tells."""
        if not self.may_guess:
            return None
        if (length := length_of(obj.node, self.rank)) is not None:
            self._guess_rank(obj.node, "len", length)
        return length

    def guess_rank(self, obj: TracedValue) -> int | None:
        """The number of dimensions, if `obj` is that and no call has shown it; plus or minus numbers of the forward."""
        if not self.may_guess or (number := number_of_dimensions(obj.node, self.rank)) is None:
            return None
        self._guess_rank(obj.node, "index", number)
        return number

    def _guess_rank(self, node: fx.Node, reading: str, number: int) -> None:
        self.uses_rank = self.guesses = True
        self._check(node, reading, number)

    def guard(self, obj: Any, reading: str) -> Any:
        read = READINGS[reading](obj.value)
        self._check(obj.node, reading, read)
        return read

    def _check(self, node: fx.Node, reading: str, expected: Any) -> None:
        if node.op == "get_attr" or (node, reading) in self._guarded:
            return
        if is_metadata(node) and node.all_input_nodes[0].op == "get_attr":
            return  # of a parameter of the module: the graph is made anew where that changes
        self._guarded.add((node, reading))
        self.create_node("call_function", check_guard, (node, reading, expected), {})

    # Nodes

    def create_node(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, kind: str, target: Any, args: Any, kwargs: Any, name: str | None = None, *_: Any
    ) -> fx.Node:
        if grad_and_autocast() != self.modes:
            raise CannotFollow("it switches gradients or autocast for a part of itself, which a graph would not do")
        if kwargs and (target is torch.add or (kind == "call_method" and target in ("add", "add_"))):
            given = {**dict(zip(("input", "other"), args, strict=False)), **kwargs}
            if (alpha := given.pop("alpha", None)) is not None:
                given["other"] = self.create_node("call_function", operator.mul, (given["other"], alpha), {})
            if set(given) == {"input", "other"}:
                args, kwargs = (given["input"], given["other"]), {}
        node = self.graph.create_node(kind, target, args, kwargs, name)
        if self._inside:
            node.meta["nn_module_stack"] = dict(self._inside)
        return node

    def create_arg(self, a: Any) -> Any:
        if is_stand_in(a):
            return a.node
        if isinstance(a, tuple) and any(type(item) is Starred for item in a):
            return self.create_arg(joined(a))
        if isinstance(a, torch.Tensor):
            # fx would keep what was made while tracing, as an attribute of the module.
            raise CannotFollow("it makes a tensor of its own, which tracing would turn into a constant")
        if isinstance(a, nn.Module):
            raise CannotFollow("it hands a module on as a value")
        if dataclasses.is_dataclass(a) and isinstance(a, dict):  # Hugging Face's outputs; fx would return a bare dict
            fields = {field.name: self.create_arg(getattr(a, field.name)) for field in dataclasses.fields(a)}
            return self.create_node("call_function", type(a), (), fields)
        try:
            return super().create_arg(a)
        except NotImplementedError as error:
            reason = f"it works with a {type(a).__name__}, which a graph cannot hold"
            if not self.may_hold_objects:
                raise CannotFollow(reason) from error
            self.not_to_run = self.not_to_run or reason
            return self.create_node("call_function", type(a), (), {})


@dataclass(frozen=True)
class TracedCall:
    """The graph of a call, the form of the call, and what it returned.

    Where no call is known, `returned` is `UNKNOWN`, and `guesses` whether something was taken to be as it usually is.
    `not_to_run`: why the graph shows what the forward does, but cannot do it, if so.
    """

    graph: fx.Graph
    form: CallForm
    returned: Any = UNKNOWN
    guesses: bool = False
    not_to_run: str = ""


def trace_forward(
    module: nn.Module,
    form: CallForm | None = None,
    *,
    in_training: bool = True,
) -> fx.Graph:
    """The graph of `trace_unknown`."""
    return trace_unknown(module, form, in_training=in_training).graph


def trace_unknown(
    module: nn.Module,
    form: CallForm | None = None,
    numbers: Mapping[str, Any] | None = None,
    *,
    may_guess: bool = True,
    in_training: bool = True,
) -> TracedCall:
    """The graph of `module`'s own forward where no call is known: in training mode, or in the mode it is in.

    By default that is with required arguments alone, so `if mask is None:` takes its usual side; of `numbers` the
    values are known. Conditions on shapes and dtypes turn out so that tracing gets through, true if they can.
    Raises `UntraceableError` where the forward depends on what only a call shows.
    """
    form = form or plainest_form(forward_signature(module))
    values = {**dict.fromkeys(form.values, UNKNOWN), **(numbers or {})}
    refuse_foreign_forward(module)

    def trace() -> TracedCall:
        return _trace_unknown(module, form, values, may_guess, in_training)

    return _with_parts_inlined(module, trace(), trace)


def _trace_unknown(
    module: nn.Module, form: CallForm, values: Mapping[str, Any], may_guess: bool, in_training: bool
) -> TracedCall:
    outcomes: GuardOutcomes = ()
    with errors_of_the_forward(), random_states_kept(), stand_ins_pass_for_values(module):
        ranks = list(RANKS)
        for _ in range(MOST_OUTCOMES):
            tracer = _Tracer(module, outcomes, in_training=in_training)
            tracer.may_guess, tracer.rank = may_guess, ranks[0]
            try:
                return TracedCall(_trace(tracer, form, values)[0], form, guesses=tracer.guesses)
            except Exception as error:  # such as `if x.shape[0] % 2: raise ...`: turn at the last condition
                if is_our_own(error):
                    raise
                taken = tracer.taken
                if tracer.uses_rank and not taken and len(ranks) > 1:
                    del ranks[0]
                    continue
                while taken and not taken[-1]:
                    taken.pop()
                if not taken:
                    raise
                outcomes = (*taken[:-1], False)
        raise CannotFollow(f"it has more conditions on shapes than can be tried ({MOST_OUTCOMES})")


def trace_call(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    run_child: RunChild | None = None,
    in_training: bool = True,
    to_run: bool = True,
) -> TracedCall:
    """The graph of `module`'s own forward as this call runs it, with guards on what it decided by.

    Children run, each by `run_child(child, *args, **kwargs)`, by default plain copies of them, so that nothing in the
    module shows it, nor in objects that it is given; random states are the caller's to restore. Raises
    `UntraceableError` where a graph cannot do what the forward does; unless it is `to_run`, objects that the forward
    makes are no reason.
    """
    form, values = form_of(forward_signature(module), args, kwargs)

    def trace(values: Mapping[str, Any]) -> TracedCall:
        with errors_of_the_forward(), _call_followed(module):
            tracer = _Tracer(module, (), in_training=in_training)
            tracer.run_child, tracer.may_hold_objects = run_child or PlainCopies().run, not to_run
            own, originals = detached_with_originals(values)
            graph, returned = _trace(tracer, form, own)
        return TracedCall(graph, form, map_values(returned, originals), not_to_run=tracer.not_to_run)

    kept = values if run_child is None else own_objects(values)
    first = trace(values if run_child is not None else own_objects(values))
    return _with_parts_inlined(module, first, lambda: trace(own_objects(kept)))


@contextmanager
def _call_followed(module: nn.Module) -> Iterator[None]:
    with torch.enable_grad(), numbers_of_python_kept(), stand_ins_pass_for_values(module):
        yield


def _trace(tracer: _Tracer, form: CallForm, values: Mapping[str, Any]) -> tuple[fx.Graph, Any]:
    module = tracer.root
    inputs = {}
    for name in form.values:
        node = tracer.create_node("placeholder", name, (), {})
        node.meta["is_number"] = isinstance(values[name], (int, float))
        inputs[name] = TracedValue(node, tracer, values[name])
    args, kwargs = form.arguments(inputs)
    with RecordMakers(tracer):
        returned = type(module).forward(tracer.copies.of(module), *args, **kwargs)
    if changed := tracer.copies.changed():
        raise CannotFollow(f"it sets {', '.join(changed)} of a module, which a graph would not do")
    tracer.create_node("output", "output", (tracer.create_arg(returned),), {})
    graph = tracer.graph
    _erase_unused(graph)
    guard_early(graph)
    graph.lint()
    return graph, _values_of(returned)[0]


def _values_of(nested: Any) -> tuple[Any, list[Any]]:
    """The same with values in the place of stand-ins, and a list of these values."""
    given: list[Any] = []

    def value_of(item: Any) -> Any:
        if is_stand_in(item):
            given.append(item.value)
            return item.value
        if type(item) is Starred:
            given.append(UNKNOWN)
        return item

    return map_values(nested, value_of), given


def _stand_ins(nested: Any) -> list[Any]:
    found: list[Any] = []
    map_values(nested, lambda item: found.append(item) if is_stand_in(item) else None)
    return found


def _erase_unused(graph: fx.Graph) -> None:
    """Erase what unpacking left unused, lest it count as a use, and tensors that were looked up only.

    An item of which an item was taken stays, though nobody uses that: Python takes it, so the value must be there.
    """
    read: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if not node.users and node not in read:
            is_item = node.op == "call_function" and node.target in (operator.getitem, getattr)
            if is_item or node.op == "get_attr":
                read.update(source for source in node.all_input_nodes if source.target is operator.getitem)
                graph.erase_node(node)


def inlined_children(module: nn.Module) -> list[nn.Module]:
    """Descendants whose forwards are part of `module`'s graph."""
    inlined = [child for child in module.children() if adds_its_inputs(child)]
    return [*inlined, *(further for child in inlined for further in inlined_children(child))]


def adds_its_inputs(module: nn.Module) -> bool:
    """Whether a forward is a part of its caller's graph: the rule given to `inline_where` says so."""
    if isinstance(module, torch.jit.ScriptModule) or forward_beneath(module) is not None:
        return False
    forward = type(module).forward
    if module not in _ADDS_ITS_INPUTS or _ADDS_ITS_INPUTS[module][0] is not forward:
        _ADDS_ITS_INPUTS[module] = forward, _looks_as_if_it_added_inputs(module)
    return _ADDS_ITS_INPUTS[module][1]


_ADDS_ITS_INPUTS: MutableMapping[nn.Module, tuple[Any, bool]] = weakref.WeakKeyDictionary()


def _looks_as_if_it_added_inputs(module: nn.Module) -> bool:
    if len(plainest_form(forward_signature(module)).values) < 2:
        return False
    try:
        return _is_inlined(trace_forward(module), module)
    except UntraceableError:
        return False


def _with_parts_inlined(module: nn.Module, plain: TracedCall, trace: Callable[[], TracedCall]) -> TracedCall:
    """What `trace` returns when the children that a graph has to show the parts of are inlined; these stay so."""
    call = plain
    inlined: dict[nn.Module, Any] = {}
    while found := {module.get_submodule(name) for name in _parts_to_see(call.graph, module)} - {*_SEEN_IN_VAIN}:
        inlined |= {child: _ADDS_ITS_INPUTS.get(child) for child in found}
        _ADDS_ITS_INPUTS.update({child: (type(child).forward, True) for child in found})
        with suppress(UntraceableError):
            call = trace()
            continue
        break
    if inlined and not _is_worth(call.graph, module, plain.graph, set(inlined)):
        _SEEN_IN_VAIN.update(inlined)
        _ADDS_ITS_INPUTS.update({child: known or (type(child).forward, False) for child, known in inlined.items()})
        return plain
    _SEEN_IN_PARTS.update(inlined)
    return dataclasses.replace(call, returned=plain.returned)


def is_seen_in_parts(module: nn.Module) -> bool:
    """Whether a child is a part of its caller's graph because `parts_to_see` named it."""
    return module in _SEEN_IN_PARTS


_SEEN_IN_PARTS: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_SEEN_IN_VAIN: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_is_inlined: Callable[[fx.Graph, nn.Module], bool] = lambda graph, module: False  # noqa: E731
_parts_to_see: Callable[[fx.Graph, nn.Module], Collection[str]] = lambda graph, module: ()  # noqa: E731
_is_worth: Callable[[fx.Graph, nn.Module, fx.Graph, set[nn.Module]], bool] = lambda *_: False  # noqa: E731


def inline_where(
    is_inlined: Callable[[fx.Graph, nn.Module], bool],
    parts_to_see: Callable[[fx.Graph, nn.Module], Collection[str]],
    is_worth: Callable[[fx.Graph, nn.Module, fx.Graph, set[nn.Module]], bool],
) -> None:
    """From now on take the forwards of children into the graphs of their callers.

    Those of which `is_inlined(graph, module)` holds, and the children that `parts_to_see(graph, module)` of a caller
    names, if `is_worth(graph, module, graph_before, children)` holds of the caller's graph then.
    """
    global _is_inlined, _parts_to_see, _is_worth
    _is_inlined, _parts_to_see, _is_worth = is_inlined, parts_to_see, is_worth
