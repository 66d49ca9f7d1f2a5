"""What keeps tracing without side effects: it runs a module's forward, with values that are none."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from ..torch_internals import own_buffers, own_children, own_parameters
from .shape_guards import depends_on_metadata_only


class CannotFollow(Exception):
    """Something in a forward that tracing recognises and refuses."""


@contextmanager
def tracing_sandbox(module: nn.Module, *, in_training: bool) -> Iterator[None]:
    """Trace the forward of `module` inside: modes, attributes and random states are as before at the end.

    Raises `CannotFollow` where the forward has set attributes or drawn random numbers.
    """
    random_states = torch.random.get_rng_state(), random.getstate()
    try:
        with _attributes_unchanged(module), _values_pass_for_tensors(module), _in_training_mode(module, in_training):
            yield
        if not torch.equal(random_states[0], torch.random.get_rng_state()) or random_states[1] != random.getstate():
            raise CannotFollow("it draws random numbers, which tracing would turn into constants")
    finally:
        torch.random.set_rng_state(random_states[0])
        random.setstate(random_states[1])


@contextmanager
def _values_pass_for_tensors(module: nn.Module) -> Iterator[None]:
    """`isinstance(x, torch.Tensor)` in a forward is true of what stands for its values while tracing."""

    def isinstance_(value: Any, kinds: Any) -> bool:
        if isinstance(value, fx.Proxy) and not depends_on_metadata_only(value.node):
            value = _A_TENSOR
        return isinstance(value, kinds)

    members = (member for member in module.modules() if not isinstance(member, torch.jit.ScriptModule))
    forwards = (inspect.unwrap(type(member).forward) for member in members)
    spaces = [space for forward in forwards if (space := getattr(forward, "__globals__", None)) is not None]
    own = [space for space in {id(s): s for s in spaces}.values() if "isinstance" not in space]
    own = [space for space in own if str(space.get("__name__")).split(".")[0] not in ("torch", "residualdroppath")]
    for space in own:
        space["isinstance"] = isinstance_
    try:
        yield
    finally:
        for space in own:
            del space["isinstance"]


_A_TENSOR = torch.empty(0)


@contextmanager
def _attributes_unchanged(module: nn.Module) -> Iterator[None]:
    """Tracing runs the forward: what it sets on modules is put back, and is an error, for a graph would not set it."""
    members = [member for member in module.modules() if not isinstance(member, torch.jit.ScriptModule)]
    namespaces: list[dict[str, Any]] = [
        own for m in members for own in (vars(m), own_buffers(m), own_parameters(m), own_children(m))
    ]
    before = [(own, dict(own)) for own in namespaces]
    try:
        yield
    finally:
        changed = [
            name
            for own, values in before
            for name in {*own, *values}
            if own.get(name, before) is not values.get(name, before)
        ]
        for own, values in before if changed else []:
            own.clear()
            own.update(values)
    if changed:
        raise CannotFollow(f"it sets {', '.join(sorted(set(changed)))} of a module, which a graph would not do")


@contextmanager
def _in_training_mode(module: nn.Module, in_training: bool) -> Iterator[None]:
    """A child in evaluation inside of a module in training stays so."""
    modes = {member: member.training for member in module.modules()} if in_training and not module.training else {}
    try:
        for member in modes:
            member.training = True
        yield
    finally:
        for member, mode in modes.items():
            member.training = mode


class RecordMakers(TorchFunctionMode):
    """Records `torch.arange(3)` and its like, which would run while tracing and leave a constant."""

    def __init__(self, tracer: fx.Tracer):
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in MAKERS:
            return self.tracer.create_proxy("call_function", func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


MAKERS = (torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.zeros, torch.tensor)
MAKERS += (torch.rand, torch.randint, torch.randn, torch.randperm)


def grad_and_autocast() -> tuple:
    nesting = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), nesting
