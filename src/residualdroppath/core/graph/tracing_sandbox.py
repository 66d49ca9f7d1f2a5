"""What keeps tracing without side effects: it runs a module's forward, with stand-ins for its values."""

from __future__ import annotations

import functools
import inspect
import math
import random
import sys
import threading
import types
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..garbage import garbage_waits
from ..torch_internals import functions_wrapped_for_fx, modules_below
from .traced_value import UNKNOWN, CannotFollow, is_stand_in


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Random states are as before at the end. Raises `CannotFollow` where they were used."""
    before = torch.random.get_rng_state()
    try:
        with numbers_of_python_kept():
            yield
        if not torch.equal(before, torch.random.get_rng_state()):
            raise CannotFollow(DRAWS)
    finally:
        torch.random.set_rng_state(before)


@contextmanager
def autocast_cache_unused() -> Iterator[None]:
    """Inside, autocast keeps no casts of parameters: a checkpoint around them, which casts them again, would differ."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextmanager
def numbers_of_python_kept() -> Iterator[None]:
    """As `random_states_kept`, of Python's own generator: what it draws is a constant of a graph."""
    before = random.getstate()
    try:
        yield
        if before != random.getstate():
            raise CannotFollow(DRAWS)
    finally:
        random.setstate(before)


DRAWS = "it draws random numbers, which tracing would turn into constants"


class RecordMakers(TorchFunctionMode):
    """Records `torch.arange(3)` and its like, which take no value of the forward and would leave a constant."""

    def __init__(self, tracer: Any):
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in MAKERS and not self.tracer.is_running and not _is_cached(sys._getframe(1)):
            return self.tracer.create_proxy("call_function", func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _is_cached(frame: types.FrameType | None) -> bool:
    """Whether a frame runs in a function whose result `functools` keeps: no stand-in may be kept there."""
    while frame is not None and frame.f_globals.get("__name__") != __name__:
        caller = frame.f_back
        name, code = frame.f_code.co_name, frame.f_code
        owners = [at.f_locals.get(own) for at in (frame, caller) if at is not None for own in ("self", "cls")]
        around = [*caller.f_locals.values(), caller.f_globals.get(name)] if caller is not None else []
        for function in (frame.f_globals.get(name), *around, *(getattr(type(own), name, None) for own in owners)):
            if isinstance(function, CACHED) and getattr(function.__wrapped__, "__code__", None) is code:
                return True
        if name == "_trace":
            return False
        frame = caller
    return False


CACHED = type(functools.lru_cache(len))
OF_SIZES = (torch.empty, torch.ones, torch.zeros, torch.rand, torch.randn)  # `torch.ones(rows, columns)`
MAKERS = (torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.zeros, torch.tensor)
MAKERS += (torch.rand, torch.randint, torch.randn, torch.randperm, torch.normal, torch.logspace, torch.as_tensor)
MAKERS += (torch.tril_indices, torch.triu_indices, torch.hann_window, torch.hamming_window)


def grad_and_autocast() -> tuple:
    """What of the state of PyTorch a graph would not restore."""
    nesting = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), nesting


_lock = threading.RLock()
_num_tracing = 0
_covered: set[nn.Module] = set()  # modules for whose forwards names are replaced
_replaced: list[tuple[MutableMapping[str, Any], str, Any]] = []


@contextmanager
def stand_ins_pass_for_values(module: nn.Module) -> Iterator[None]:
    """In the code of the forwards below `module`, `isinstance` is true of stand-ins as it is of their values.

    Functions under `torch.fx.wrap` are recorded as one node where they get stand-ins of what no call has shown. Names
    are replaced in the modules that define this code while something is traced, in any thread: wherever they get real
    values they do what they did.
    """
    global _num_tracing
    with _lock:
        if _num_tracing == 0:
            for namespace, name in functions_wrapped_for_fx():
                if (function := namespace.get(name)) is not None:
                    _replace(namespace, name, _recorded(function, _is_unknown))
            for function in OF_SIZES:  # their arguments are parsed before they are given to a mode
                _replace(torch.__dict__, function.__name__, _recorded(function, is_stand_in))
            for of_dtype in (torch.finfo, torch.iinfo):
                _replace(torch.__dict__, of_dtype.__name__, _recorded_class(of_dtype))
            _replace(torch.__dict__, "is_tensor", lambda value: isinstance_(value, torch.Tensor))
            for name, function in list(vars(math).items()):
                if callable(function):
                    _replace(math.__dict__, name, _recorded(function, is_stand_in))
        _num_tracing += 1
        if module not in _covered:
            _covered.update(modules_below(module))
            for namespace in _namespaces_of(module):
                if "isinstance" not in namespace:
                    _replace(namespace, "isinstance", isinstance_)
                if "len" not in namespace:
                    _replace(namespace, "len", len_)
    try:
        with garbage_waits():
            yield
    finally:
        with _lock:
            _num_tracing -= 1
            if _num_tracing == 0:
                _covered.clear()
            while _num_tracing == 0 and _replaced:
                namespace, name, function = _replaced.pop()
                if function is None:
                    del namespace[name]
                else:
                    namespace[name] = function


def _replace(namespace: MutableMapping[str, Any], name: str, replacement: Callable[..., Any]) -> None:
    _replaced.append((namespace, name, namespace.get(name)))
    namespace[name] = replacement


def isinstance_(value: Any, kinds: Any) -> bool:
    if is_stand_in(value):
        if value.value is not UNKNOWN:
            return isinstance(value.value, kinds)
        return isinstance(value.tracer.value_like(value), kinds)
    return isinstance(value, kinds)


def _namespaces_of(module: nn.Module) -> list[dict[str, Any]]:
    classes = {type(m) for m in modules_below(module) if not isinstance(m, torch.jit.ScriptModule)}
    found = {id(space): space for each in classes for space in _namespaces_of_class(each)}
    return list(found.values())


@functools.lru_cache(maxsize=4096)
def _namespaces_of_class(module_class: type[nn.Module]) -> tuple[dict[str, Any], ...]:
    """The namespaces of its forward, and of functions that these and theirs import."""
    found: dict[int, dict[str, Any]] = {}
    functions: list[Any] = [inspect.unwrap(base.forward) for base in module_class.__mro__ if "forward" in vars(base)]
    for _ in range(3):
        spaces = [
            space for function in functions if (space := _foreign(function)) is not None and id(space) not in found
        ]
        new = {id(space): space for space in spaces}
        found |= new
        functions = [
            value for space in new.values() for value in space.values() if isinstance(value, types.FunctionType)
        ]
    return tuple(found.values())


NOT_PATCHED = {*sys.stdlib_module_names, "torch", "residualdroppath", "numpy", "torchvision", "pytest", "_pytest"}


def _foreign(function: Any) -> dict[str, Any] | None:
    space = getattr(inspect.unwrap(function), "__globals__", None)
    if space is None or str(space.get("__name__")).split(".")[0] in NOT_PATCHED:
        return None
    return space


@functools.lru_cache(maxsize=1024)
def _recorded(function: Callable[..., Any], wanted: Callable[[Any], bool]) -> Callable[..., Any]:
    """The function, as one node where it gets stand-ins that are `wanted`."""

    @functools.wraps(function)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        found = next(filter(wanted, _flat((args, kwargs))), None)
        if found is None:
            return function(*args, **kwargs)
        return found.tracer.create_proxy("call_function", function, args, kwargs)

    return recorded


@functools.cache
def _recorded_class(wanted: type) -> type:
    """The class, whose making of an object is one node where it gets stand-ins."""

    class SameInstances(type):
        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, wanted)

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            return _recorded(wanted, is_stand_in)(*args, **kwargs)

    return SameInstances(wanted.__name__, (), {})


def len_(value: Any) -> Any:
    return value.tracer.create_proxy("call_function", len, (value,), {}) if _is_unknown(value) else len(value)


def _is_unknown(value: Any) -> bool:
    return is_stand_in(value) and value.value is UNKNOWN


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value
