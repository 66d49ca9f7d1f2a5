"""One module's own `forward` as a torch.fx graph; child modules are leaves unless they are inlined.

A trace follows a call: it runs the forward once, with stand-ins for its values, and each operation on the values of
the call too. Where there is no call, only what Python needs no value for can be followed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from ..forward_override import forward_beneath
from ..torch_internals import noticing_checkpoints
from .call_form import CallForm, form_of, forward_signature, plainest_form
from .module_kinds import ModuleKinds, once_of_a_kind
from .nested_values import detached_with_originals, map_values, own_objects
from .plain_copies import PlainCopies
from .shape_guards import MOST_ALIKE, MOST_OUTCOMES, GuardOutcomes, guard_early
from .trace_errors import UntraceableError, errors_of_the_forward, is_our_own, line_of, refuse_foreign_forward
from .traced_value import UNKNOWN, CannotFollow, TracedValue
from .tracer import ForwardTracer, RunChild, values_of
from .tracing_sandbox import (
    RecordMakers,
    autocast_cache_unused,
    numbers_of_python_kept,
    random_states_kept,
    stand_ins_pass_for_values,
)
from .unknown_sizes import RANKS


@dataclass(eq=False)
class TracedCall:
    """The graph of a call, the form of the call, and what it returned, None as soon as nobody needs it.

    Where no call is known, `returned` is `UNKNOWN`, and `guesses` whether something was taken to be as it usually is.
    `checkpoints`: a part of the forward itself runs under activation checkpointing. `not_to_run`: why the graph shows
    what the forward does, but cannot do it, if so.
    """

    graph: fx.Graph
    form: CallForm
    returned: Any = UNKNOWN
    guesses: bool = False
    checkpoints: bool = False
    not_to_run: str = ""


def trace_forward(module: nn.Module) -> fx.Graph:
    """The graph of `trace_unknown`, of the plainest call."""
    return trace_unknown(module).graph


def trace_unknown(
    module: nn.Module,
    form: CallForm | None = None,
    numbers: Mapping[str, Any] | None = None,
    *,
    may_guess: bool = True,
    in_training: bool = True,
    kinds: ModuleKinds | None = None,
) -> TracedCall:
    """The graph of `module`'s own forward where no call is known: in training mode, or in the mode it is in.

    By default that is with required arguments alone, so `if mask is None:` takes its usual side; of `numbers` the
    values are known. Conditions on shapes and dtypes turn out so that tracing gets through, true if they can.
    Raises `UntraceableError` where the forward depends on what only a call shows.
    """
    form = form or plainest_form(forward_signature(module))
    values = {**dict.fromkeys(form.values, UNKNOWN), **(numbers or {})}
    refuse_foreign_forward(module)

    def trace(kinds: ModuleKinds | None, parts: Collection[str]) -> TracedCall:
        new_tracer = functools.partial(_tracer_of, module, parts, kinds, in_training)
        with errors_of_the_forward(), random_states_kept(), stand_ins_pass_for_values(module):
            return _trace_unknown(new_tracer, form, values, may_guess=may_guess)

    return _with_parts_inlined(module, trace, kinds)


def trace_kind(module: nn.Module, form: CallForm, numbers: Mapping[str, Any], kinds: ModuleKinds | None) -> TracedCall:
    """As `trace_unknown`, once for all modules of a kind: the graph is not to be changed."""
    if kinds is None:
        return trace_unknown(module, form, numbers)
    use = "trace", form.key, tuple(numbers.items())
    return kinds.once(lambda module: trace_unknown(module, form, numbers, kinds=kinds), module, use)


def _tracer_of(
    module: nn.Module,
    parts: Collection[str],
    kinds: ModuleKinds | None,
    in_training: bool,
    outcomes: GuardOutcomes = (),
) -> ForwardTracer:
    is_inlined = functools.partial(_is_inlined_child, parts=parts, kinds=kinds)
    return ForwardTracer(module, outcomes, in_training=in_training, is_inlined=is_inlined, kinds=kinds)


Trace = Callable[[ModuleKinds | None, Collection[str]], TracedCall]  # with the paths of children to inline


def _with_parts_inlined(module: nn.Module, trace: Trace, kinds: ModuleKinds | None) -> TracedCall:
    """A trace with those children inlined that the graph has to show the parts of, if that is worth it."""
    call = plain = _of_its_kind(trace, kinds, ())
    parts: set[str] = set()
    while more := set(_parts_to_see(call.graph, module)) - parts:
        parts |= more
        try:
            call = _of_its_kind(trace, kinds, parts)
        except UntraceableError:
            break
    if not parts or not _is_worth(call.graph, module, plain.graph, parts):
        return plain
    return dataclasses.replace(call, returned=plain.returned)


def _of_its_kind(trace: Trace, kinds: ModuleKinds | None, parts: Collection[str]) -> TracedCall:
    """The trace with places in lists as values; where that does not work, with the numbers that they are."""
    try:
        if kinds is not None:
            kinds.place_was_used = False
        return trace(kinds, parts)
    except UntraceableError:
        if kinds is None or not kinds.place_was_used:
            raise
        call = trace(None, parts)
        kinds.place_was_read = True
        return call


def _trace_unknown(
    new_tracer: Callable[[GuardOutcomes], ForwardTracer], form: CallForm, values: Mapping[str, Any], *, may_guess: bool
) -> TracedCall:
    outcomes: GuardOutcomes = ()
    ranks = list(RANKS)
    met: list[str] = []  # errors so far
    for _ in range(MOST_OUTCOMES):
        tracer = new_tracer(outcomes)
        tracer.may_guess, tracer.rank = may_guess, ranks[0]
        try:
            graph, _ = _trace(tracer, form, values)
            return TracedCall(graph, form, guesses=tracer.guesses, checkpoints=tracer.checkpoints)
        except Exception as error:  # such as `if x.shape[0] % 2: raise ...`: turn at the last condition
            met.append(where := f"{error!r} {line_of(error)}")
            if is_our_own(error) or met.count(where) == MOST_ALIKE:  # nothing that was turned avoids it
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
    kinds: ModuleKinds | None = None,
) -> TracedCall:
    """The graph of `module`'s own forward as this call runs it, with guards on what it decided by.

    Children run, each by `run_child(child, *args, **kwargs)`, by default plain copies of them, so that nothing in the
    module shows it, nor in objects that it is given, but where it runs as a part of its caller's forward, with
    `run_child`. Random states are the caller's to restore. Raises `UntraceableError` where a graph cannot do what the
    forward does; unless it is `to_run`, objects that the forward makes are no reason.
    """
    form, values = form_of(forward_signature(module), args, kwargs)
    kept = own_objects(values)
    of_each_trace = itertools.chain([values if run_child else kept], itertools.repeat(kept))

    def trace(kinds: ModuleKinds | None, parts: Collection[str]) -> TracedCall:
        given = next(of_each_trace)
        with errors_of_the_forward(), _call_followed(module):
            tracer = _tracer_of(module, parts, kinds, in_training)
            tracer.run_child, tracer.may_hold_objects = run_child or PlainCopies().run, not to_run
            own, originals = detached_with_originals(given if given is values else own_objects(given))
            graph, returned = _trace(tracer, form, own)
        returned = map_values(returned, originals)
        return TracedCall(graph, form, returned, checkpoints=tracer.checkpoints, not_to_run=tracer.not_to_run)

    return _with_parts_inlined(module, trace, kinds)


@contextmanager
def _call_followed(module: nn.Module) -> Iterator[None]:
    with torch.enable_grad(), autocast_cache_unused(), numbers_of_python_kept(), stand_ins_pass_for_values(module):
        yield


def _trace(tracer: ForwardTracer, form: CallForm, values: Mapping[str, Any]) -> tuple[fx.Graph, Any]:
    module = tracer.root
    inputs = {}
    for name in form.values:
        node = tracer.create_node("placeholder", name, (), {})
        node.meta["is_number"] = isinstance(values[name], (int, float))
        inputs[name] = TracedValue(node, tracer, values[name])
    args, kwargs = form.arguments(inputs)
    with RecordMakers(tracer), noticing_checkpoints(tracer.note_checkpoint):
        returned = type(module).forward(tracer.copies.of(module), *args, **kwargs)
    if changed := tracer.copies.changed():
        raise CannotFollow(f"it sets {', '.join(changed)} of a module, which a graph would not do")
    tracer.create_node("output", "output", (tracer.create_arg(returned),), {})
    graph = tracer.graph
    _erase_unused(graph)
    guard_early(graph)
    graph.lint()
    return graph, values_of(returned)[0]


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


def inlined_paths(graph: fx.Graph) -> set[str]:
    """Paths of descendants whose forwards are part of a graph."""
    stacks = (node.meta.get("nn_module_stack", {}) for node in graph.nodes)
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    return {path for stack in stacks for path, _ in stack.values()} - called


def _is_inlined_child(child: nn.Module, path: str, *, parts: Collection[str], kinds: ModuleKinds | None) -> bool:
    """Whether the forward of a child is a part of its caller's graph."""
    if isinstance(child, torch.jit.ScriptModule) or forward_beneath(child) is not None:
        return False
    return path in parts or adds_its_inputs(child, kinds)


def adds_its_inputs(module: nn.Module, kinds: ModuleKinds | None = None) -> bool:
    """Whether a forward is a part of its caller's graph wherever it is called: a rule of `inline_where`."""
    forward = type(module).forward
    if module not in _ADDS_ITS_INPUTS or _ADDS_ITS_INPUTS[module][0] is not forward:
        _ADDS_ITS_INPUTS[module] = forward, once_of_a_kind(kinds, _looks_as_if_it_added_inputs, module)
    return _ADDS_ITS_INPUTS[module][1]


_ADDS_ITS_INPUTS: MutableMapping[nn.Module, tuple[Any, bool]] = weakref.WeakKeyDictionary()


def _looks_as_if_it_added_inputs(module: nn.Module) -> bool:
    if len(plainest_form(forward_signature(module)).values) < 2:
        return False
    try:
        return _is_inlined(trace_forward(module), module)
    except UntraceableError:
        return False


_is_inlined: Callable[[fx.Graph, nn.Module], bool] = lambda graph, module: False  # noqa: E731
_parts_to_see: Callable[[fx.Graph, nn.Module], Collection[str]] = lambda graph, module: ()  # noqa: E731
_is_worth: Callable[[fx.Graph, nn.Module, fx.Graph, Collection[str]], bool] = lambda *_: False  # noqa: E731


def inline_where(
    is_inlined: Callable[[fx.Graph, nn.Module], bool],
    parts_to_see: Callable[[fx.Graph, nn.Module], Collection[str]],
    is_worth: Callable[[fx.Graph, nn.Module, fx.Graph, Collection[str]], bool],
) -> None:
    """From now on take the forwards of children into the graphs of their callers.

    Those of which `is_inlined(graph, module)` holds, and the children that `parts_to_see(graph, module)` of a caller
    names, if `is_worth(graph, module, graph_before, names)` holds of the caller's graph then.
    """
    global _is_inlined, _parts_to_see, _is_worth
    _is_inlined, _parts_to_see, _is_worth = is_inlined, parts_to_see, is_worth
