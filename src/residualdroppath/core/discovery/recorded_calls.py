"""The calls of all modules in one forward of a network, each traced as it ran."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.call_form import form_of, forward_signature
from ..graph.graph_code import function_of
from ..graph.module_kinds import ModuleKinds
from ..graph.nested_values import detached
from ..graph.plain_copies import PlainCopies
from ..graph.trace_errors import UntraceableError, refuse_foreign_forward
from ..graph.tracing import TracedCall, trace_call
from ..graph.tracing_sandbox import stand_ins_pass_for_values
from ..random_states import random_states_restored
from ..torch_internals import unseen_by_modes

MOST_CALLS = 16  # of one module that differ in what is traced
SPLIT = "mixed torch.Tensor and DTensor"  # what torch says where a layer's own parameters are split over processes


class SplitParametersError(ValueError):
    """Parameters of blocks are split over processes, and so cannot be run on copies."""


@dataclass
class RecordedCalls:
    """By module, in order of the first call: the traces of calls that differ, or why there is none."""

    order: dict[nn.Module, int] = field(default_factory=dict)
    traced: dict[nn.Module, list[TracedCall]] = field(default_factory=dict)
    failures: dict[nn.Module, str] = field(default_factory=dict)


def arguments_of(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a model is called with on an example: a tensor, a tuple of arguments or a dict of keyword arguments."""
    if isinstance(example, dict):
        return (), example
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}


def record_calls(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    is_traced: Callable[[nn.Module], bool],
    kinds: ModuleKinds,
) -> RecordedCalls:
    """Run the plain model in training mode, without gradients, on copies that leave nothing behind.

    Raises what the model itself raises, and `SplitParametersError`.
    """
    recorder = _Recorder(is_traced, kinds)
    copies = PlainCopies(recorder.forward_of, in_training=not model.training)
    recorder.copies = copies
    args, kwargs = detached(tuple(args)), detached(dict(kwargs))  # the forward may write to them
    with random_states_restored(model), unseen_by_modes(), torch.no_grad(), stand_ins_pass_for_values(model):
        try:
            copies.of(model)(*args, **kwargs)
        except RuntimeError as error:
            if SPLIT not in str(error):
                raise
            raise SplitParametersError(
                f"Branches of {type(model).__name__} have to be looked for in a call on copies of its modules, whose "
                "parameters must be whole, and those of its blocks are split over processes. Construct "
                "ResidualDropPath with `example=` (a batch) before `fully_shard`; or shard the whole network alone."
            ) from error
    return recorder.calls


@dataclass
class _SharedTrace:
    """The trace of one call, which serves the calls of modules that are alike as long as its guards hold."""

    call: TracedCall

    @functools.cached_property
    def run(self) -> Callable[..., Any]:
        return function_of(self.call.graph, f"residual_droppath_recorded_{id(self.call.graph)}")


class _Recorder:
    copies: PlainCopies

    def __init__(self, is_traced: Callable[[nn.Module], bool], kinds: ModuleKinds):
        self.is_traced = is_traced
        self.kinds = kinds
        self.calls = RecordedCalls()
        self._seen: dict[nn.Module, set[Hashable]] = {}
        self._shared: dict[Hashable, list[_SharedTrace]] = {}
        self._failures: dict[Hashable, str] = {}

    def forward_of(self, module: nn.Module, copy: nn.Module) -> Callable[..., Any] | None:
        if type(module).forward is nn.Module.forward:
            return None
        own = vars(copy).get("forward")

        def forward(*args: Any, **kwargs: Any) -> Any:
            return self.run(module, copy, own, args, kwargs)

        return forward

    def run(self, module: nn.Module, copy: nn.Module, own: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls = self.calls
        calls.order.setdefault(module, len(calls.order))
        if self.is_traced(module):
            try:
                refuse_foreign_forward(module)
                key = _key(module, args, kwargs)
                if key not in (seen := self._seen.setdefault(module, set())) and len(seen) < MOST_CALLS:
                    seen.add(key)
                    call, returned = self.traced(module, copy, key, args, kwargs)
                    calls.traced.setdefault(module, []).append(call)
                    return returned
            except UntraceableError as error:
                calls.failures[module] = str(error)
        return own(*args, **kwargs) if own is not None else type(module).forward(copy, *args, **kwargs)

    def traced(
        self, module: nn.Module, copy: nn.Module, key: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[TracedCall, Any]:
        """The trace of a call, and what the call returns; of a module like one before, by the trace of that."""
        key = self.kinds.of(module), copy.training, key
        if key in self._failures:
            raise UntraceableError(self._failures[key])
        shared = self._shared.setdefault(key, [])
        for trace in shared:
            _, values = form_of(trace.call.form.signature, detached(args), detached(kwargs))
            with contextlib.suppress(Exception):  # a guard, or what the forward raises: then its own trace shows it
                return trace.call, trace.run(copy, **values)
        run_child, in_training = self.copies.run, copy.training
        with self.kinds.reading() as has_read_place:
            try:
                call = trace_call(
                    module,
                    args,
                    kwargs,
                    run_child=run_child,
                    in_training=in_training,
                    to_run=False,
                    kinds=self.kinds,
                )
            except UntraceableError as error:
                if not has_read_place():
                    self._failures[key] = str(error)
                raise
            if not has_read_place() and not call.not_to_run:
                shared.append(_SharedTrace(call))
        returned, call.returned = call.returned, None
        return call, returned


def _key(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
    """Equal for calls that one trace serves: all but the values of tensors."""
    form, values = form_of(forward_signature(module), args, kwargs)
    return form.key, tuple((name, _kind(value)) for name, value in values.items())


def _kind(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_kind, value))
    if isinstance(value, dict):
        return type(value), tuple((key, _kind(item)) for key, item in value.items())
    return type(value), repr(value) if isinstance(value, (int, float, str)) else ""
