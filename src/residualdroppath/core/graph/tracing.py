"""One module's own `forward` as a torch.fx graph; child modules are leaves unless they add what they are given."""

from __future__ import annotations

import dataclasses
import operator
import traceback
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import fx, nn

from ..torch_internals import ReentrantCheckpoint
from .call_form import CallForm, forward_signature, plainest_form
from .shape_guards import MOST_OUTCOMES, GuardOutcomes, check_guard, depends_on_metadata_only
from .tracing_sandbox import CannotFollow, RecordMakers, grad_and_autocast, tracing_sandbox


class UntraceableError(Exception):
    """The forward of a module cannot be written as a graph; the message says why."""


def _inplace(function: Any):
    def record(self: fx.Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


class _InplaceProxy(fx.Proxy):
    # fx falls back from `x += y` to `x = x + y`, which promotes dtypes where the former does not.
    __iadd__ = _inplace(operator.iadd)
    __isub__ = _inplace(operator.isub)
    __imul__ = _inplace(operator.imul)
    __itruediv__ = _inplace(operator.itruediv)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, int):
            raise CannotFollow("it assigns to an element of a list, which a graph cannot follow")
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True  # else `self.num_batches_tracked.add_(1)` would count while tracing

    def __init__(self, form: CallForm, outcomes: GuardOutcomes):
        super().__init__()
        self.form = form
        self.outcomes = outcomes
        self.taken: list[bool] = []
        self.modes = grad_and_autocast()

    def create_node(self, kind: str, target: Any, args: Any, kwargs: Any, *further: Any, **options: Any) -> fx.Node:
        if grad_and_autocast() != self.modes:
            raise CannotFollow("it switches gradients or autocast for a part of itself, which a graph would not do")
        if kwargs and (target is torch.add or (kind == "call_method" and target in ("add", "add_"))):
            given = {**dict(zip(("input", "other"), args, strict=False)), **kwargs}
            if (alpha := given.pop("alpha", None)) is not None:
                scaled = super().create_node("call_function", operator.mul, (given["other"], alpha), {})
                given["other"] = scaled
            if set(given) == {"input", "other"}:
                args, kwargs = (given["input"], given["other"]), {}
        return super().create_node(kind, target, args, kwargs, *further, **options)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not adds_its_inputs(m)

    def create_args_for_root(self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None) -> Any:
        placeholders = {name: self.create_proxy("placeholder", name, (), {}) for name in self.form.values}
        args, kwargs = self.form.arguments(placeholders)
        return (lambda module: root_fn(module, *args, **kwargs)), [self.root]

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, fx.Proxy):
            return a.node
        if isinstance(a, torch.Tensor) and not isinstance(a, nn.Parameter) and not self._is_own(a):
            # fx would keep what was made while tracing, as an attribute of the module.
            raise CannotFollow("it makes a tensor of its own, which tracing would turn into a constant")
        if dataclasses.is_dataclass(a) and isinstance(a, dict):  # Hugging Face's outputs; fx would return a bare dict
            fields = {field.name: self.create_arg(getattr(a, field.name)) for field in dataclasses.fields(a)}
            return self.create_node("call_function", type(a), (), fields)
        return super().create_arg(a)

    def _is_own(self, tensor: torch.Tensor) -> bool:
        return any(tensor is own for own in [*self.root.buffers(), *self.tensor_attrs])

    def to_bool(self, obj: fx.Proxy) -> bool:
        if not depends_on_metadata_only(obj.node):
            return super().to_bool(obj)
        before = tuple(self.taken)
        outcome = self.outcomes[len(before)] if len(before) < len(self.outcomes) else True
        self.create_proxy("call_function", check_guard, (obj, before, outcome), {})
        self.taken.append(outcome)
        return outcome

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _InplaceProxy(node, self)


def trace_forward(
    module: nn.Module, form: CallForm | None = None, outcomes: GuardOutcomes = (), *, in_training: bool = True
) -> fx.Graph:
    """The graph of `module`'s own forward, called as `form` says: in training mode, or in the mode it is in.

    By default that is with required arguments alone, so `if mask is None:` takes its usual side. Where
    shapes or dtypes decide, the first conditions turn out as in `outcomes`, further ones so that tracing gets through.
    Raises `UntraceableError` where the forward depends on values that only running it can tell.
    """
    form = form or plainest_form(forward_signature(module))
    try:
        with tracing_sandbox(module, in_training=in_training):
            graph = _trace_under_guards(module, form, outcomes)
        _erase_unused_items(graph)
        graph.lint()
    except Exception as error:  # tracing runs foreign code on proxies, and so raises anything
        if _came_through_reentrant_checkpoint(error):
            error = CannotFollow("it is checkpointed by the reentrant kind; use `checkpoint(..., use_reentrant=False)`")
        if _is_our_own(error):
            raise
        kind = "" if isinstance(error, CannotFollow) else f"{type(error).__name__}: "
        raise UntraceableError(f"{kind}{str(error).splitlines()[0] if str(error) else ''}") from error
    return graph


def _came_through_reentrant_checkpoint(error: Exception) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is ReentrantCheckpoint.forward.__code__ for frame, _ in frames)


def _is_our_own(error: Exception) -> bool:
    """Whether the error is a fault of this package, and none of the forward that is traced."""
    if isinstance(error, CannotFollow):
        return False
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    here = last.f_globals.get("__name__", "").startswith("residualdroppath.core.")
    return here and last.f_code.co_name not in ("isinstance_", "__torch_function__")  # called by the forward


def _trace_under_guards(module: nn.Module, form: CallForm, given: GuardOutcomes) -> fx.Graph:
    """Trace on; where that ends in an error (`if x.shape[0] % 2: raise ...`), turn at the last condition."""
    outcomes = given
    for _ in range(MOST_OUTCOMES):
        tracer = _Tracer(form, outcomes)
        try:
            with RecordMakers(tracer):
                return tracer.trace(module)
        except Exception as error:
            if _is_our_own(error):
                raise
            taken = tracer.taken
            while len(taken) > len(given) and not taken[-1]:
                taken.pop()
            if len(taken) <= len(given):
                raise
            outcomes = (*taken[:-1], False)
    raise CannotFollow(f"it has more conditions on shapes than can be tried ({MOST_OUTCOMES})")


def _erase_unused_items(graph: fx.Graph) -> None:
    """Erase what unpacking a shape left unused, lest it count as a use."""
    for node in reversed(graph.nodes):
        if not node.users and node.op == "call_function" and node.target in (operator.getitem, getattr):
            graph.erase_node(node)


def inlined_children(module: nn.Module) -> list[nn.Module]:
    """Descendants whose forwards are part of `module`'s graph."""
    inlined = [child for child in module.children() if adds_its_inputs(child)]
    return [*inlined, *(further for child in inlined for further in inlined_children(child))]


def adds_its_inputs(module: nn.Module) -> bool:
    """Whether a forward is a part of its caller's graph: the rule given to `inline_where` says so."""
    if isinstance(module, torch.jit.ScriptModule):
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


_is_inlined: Callable[[fx.Graph, nn.Module], bool] = lambda graph, module: False  # noqa: E731


def inline_where(is_inlined: Callable[[fx.Graph, nn.Module], bool]) -> None:
    """From now on take the forwards of which `is_inlined(graph, module)` holds into the graphs of their callers."""
    global _is_inlined
    _is_inlined = is_inlined
