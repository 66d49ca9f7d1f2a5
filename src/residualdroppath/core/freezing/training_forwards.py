"""When training forwards of a network begin and end, whichever of its modules is called, in any thread.

The method acts only while one runs. Activation checkpoints run parts of a forward again, in the backward:
they see what the forward saw.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from ..discovery.module_roles import with_parameters
from ..forward_override import ForwardOverride, own_override
from ..torch_internals import (
    call_at_checkpoints,
    is_exporting,
    modules_below,
    outside_of_graphs,
    skipped_by_compiler,
    wraps_compiled,
)


class Observer(Protocol):
    """What is called around training forwards: `begin_forward` and `end_forward` once for those that overlap."""

    def begin_forward(self) -> None: ...

    def end_forward(self) -> None: ...

    def note_evaluation(self) -> None: ...

    @property
    def first_call(self) -> Callable[[tuple[Any, ...], dict[str, Any]], None] | None:
        """Takes the arguments of the first call of the model, and sets another forward on it; None: not wanted."""
        ...

    def recomputation(self) -> Callable[[], AbstractContextManager[Any]]:
        """Called in a forward: makes the context in which a part of it runs again."""
        ...


class TrainingForwards:
    """Counts the training forwards that run; the first to begin and the last to end call the observer."""

    def __init__(self, observer: Observer):
        self.observer = observer
        self.active = True
        self.num_running = 0  # recomputations included
        self._num_begun = 0
        self._lock = threading.Lock()
        self._thread = threading.local()

    @property
    def running_here(self) -> bool:
        """Whether this thread is inside one."""
        return getattr(self._thread, "inside", False)

    def __enter__(self) -> None:
        with self._lock:
            if self._num_begun == 0:
                try:
                    self.observer.begin_forward()
                except BaseException:
                    self.observer.end_forward()
                    raise
            self._num_begun += 1
            self.num_running += 1
        self._thread.inside = True
        self._thread.at_checkpoints = call_at_checkpoints(self.observer.recomputation)

    def __exit__(self, *_: object) -> None:
        self._thread.inside = False
        call_at_checkpoints(self._thread.at_checkpoints)
        with self._lock:
            self.num_running -= 1
            self._num_begun -= 1
            if self._num_begun == 0:
                self.observer.end_forward()

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Modules called meanwhile, in this thread, are part of a recomputation and begin no forward."""
        outside = not self.running_here
        self._thread.inside = True
        self.num_running += 1
        try:
            yield
        finally:
            self.num_running -= 1
            self._thread.inside = not outside


class WatchedForward(ForwardOverride):
    """Begins a training forward unless one runs already: any module can be called alone."""

    def __init__(self, module: nn.Module, forwards: TrainingForwards, *, is_root: bool):
        super().__init__(module)
        self.forwards = forwards
        self.is_root = is_root

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and args[0] is self.module:  # bound as if it were a function of a class, by Accelerate's `unwrap_model`
            args = args[1:]
        if not self.module.training or not self.forwards.active:
            if self.is_root and not torch.compiler.is_compiling():
                self.forwards.observer.note_evaluation()
            return self.original(*args, **kwargs)
        if torch.compiler.is_compiling():
            # Compiled inside of a running forward, or exported: no graph may hold what changes from plan to plan.
            if self.forwards.num_running or is_exporting():
                return self.original(*args, **kwargs)
            return _begin_outside_of_graphs(self.forwards, self.original, args, kwargs)
        if self.forwards.running_here or is_exporting():
            return self.original(*args, **kwargs)
        if self.is_root and (first_call := self.forwards.observer.first_call) is not None:
            first_call(args, kwargs)
            return self._go_on(args, kwargs)
        with self.forwards:
            return self.original(*args, **kwargs)

    def _go_on(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The forward that is set now, without what others have wrapped around this one: that is entered already.

        A second entry is not harmless: the one context that `torch.autocast` makes of a decorated function would come
        out of it switched on.
        """
        top = own_override(self.module, WatchedForward) or self
        lowest = _lowest(top)
        around, lowest.original = lowest.original, _lowest(self).original
        try:
            return top(*args, **kwargs)
        finally:
            lowest.original = around


def _lowest(forward: ForwardOverride) -> ForwardOverride:
    """The last of ours in a row: what it calls is the module's own forward, or what others have set."""
    while isinstance(forward.original, ForwardOverride):
        forward = forward.original
    return forward


@skipped_by_compiler
def _begin_outside_of_graphs(
    forwards: TrainingForwards, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    _enter(forwards)
    try:
        return forward(*args, **kwargs)
    finally:
        _exit(forwards)


@outside_of_graphs
def _enter(forwards: TrainingForwards) -> None:
    forwards.__enter__()


@outside_of_graphs
def _exit(forwards: TrainingForwards) -> None:
    forwards.__exit__()


def watch(model: nn.Module, forwards: TrainingForwards) -> list[WatchedForward]:
    """Watch every module of `model` that has parameters and is not yet watched; what was installed."""
    installed = []
    has_parameters = with_parameters(model)
    for module in modules_below(model):
        if isinstance(module, torch.jit.ScriptModule) or own_override(module, WatchedForward) is not None:
            continue
        if type(module).forward is nn.Module.forward:  # a container, which cannot be called
            continue
        if module is model or (module in has_parameters and not wraps_compiled(module)):
            forward = WatchedForward(module, forwards, is_root=module is model)
            forward.install()
            installed.append(forward)
    return installed
