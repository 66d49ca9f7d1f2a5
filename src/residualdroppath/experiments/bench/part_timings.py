"""Times each part of a network apart: branches, trunk and optimizer.

Parts take turns, so that each finds the caches as a whole iteration would leave them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...core.freezing.frozen_norms import has_batch_statistics
from ...core.running.actions import begin_gradient, drop
from ...core.running.add_point import Action, AddPoint
from ...training.runtime import Stopwatch
from .contenders import Contender, make_method
from .lower_bound import MODES, LowerBound, Mode


@dataclass
class Part:
    """A branch taken out of a network: what it was given, and the gradient of the sum."""

    add_point: AddPoint
    shortcut: Tensor
    inputs: tuple[Any, ...]
    reads_shortcut: tuple[bool, ...]  # for each input, whether it is the shortcut itself
    gradient: Tensor | None = None


class PartTimer:
    """Takes a contender's network apart; each `round()` times every part once, into `lower_bound`."""

    def __init__(self, contender: Contender, stopwatch: Stopwatch):
        self.contender = contender
        self.stopwatch = stopwatch
        self.parts: dict[int, Part] = {}
        self.rdp = make_method(contender.model, contender.config, 0.0)
        self.branches = [branch.parameters() for branch in self.rdp.branches]
        in_branches = {id(parameter) for own in self.branches for parameter in own}
        self.trunk = [p for p in contender.model.parameters() if id(p) not in in_branches]
        self.actions: list[Action] = [self._record(index) for index in range(len(self.branches))]
        self.current = [self._current(index) for index in range(len(self.branches))]
        self.gradients = {p: torch.zeros_like(p) for p in contender.model.parameters()}
        with self.rdp.acting(self.current):
            contender.loss().backward()
        contender.model.requires_grad_(False)
        self.lower_bound = self._empty()
        self.round()
        self.lower_bound = self._empty()  # the first round warmed up

    def round(self) -> None:
        """Time every part once."""
        bound = self.lower_bound
        for mode in MODES:
            for index, part in self.parts.items():
                bound.branches.setdefault((index, mode), []).append(self._branch(index, part, mode))
        for index, part in self.parts.items():
            seconds = self.stopwatch(lambda part=part: part.add_point.without_branch(part.shortcut))
            bound.dropped_adds.setdefault(index, []).append(seconds)
        with self.rdp.acting(self.current):
            for first in (None, *self.parts):
                bound.trunk.setdefault(first, []).append(self._trunk(first))
        with self.rdp.paused():  # no iteration belongs to these updates
            bound.idle_update.append(self._update([]))
            for owner, parameters in [(None, self.trunk), *enumerate(self.branches)]:
                bound.updates.setdefault(owner, []).append(self._update(parameters))

    def close(self) -> None:
        """Give the network back, plain."""
        self.contender.model.requires_grad_(True)
        self.rdp.remove()
        self.parts.clear()

    def _empty(self) -> LowerBound:
        found = self.rdp.discovery.branches
        return LowerBound(tuple(b.name for b in found), tuple(has_batch_statistics(b.modules()) for b in found))

    def _current(self, index: int) -> Action:
        """What `actions` holds for the branch when it runs."""
        return lambda add_point, shortcut, inputs: self.actions[index](add_point, shortcut, inputs)

    def _record(self, index: int) -> Action:
        def recorded(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
            detached = tuple(value.detach() if isinstance(value, Tensor) else value for value in inputs)
            part = Part(add_point, shortcut.detach(), detached, tuple(value is shortcut for value in inputs))
            merged = add_point.add(shortcut, add_point.run(*inputs))
            merged.register_hook(lambda gradient: setattr(part, "gradient", gradient.detach()))
            self.parts[index] = part
            return merged

        return recorded

    def _branch(self, index: int, part: Part, mode: Mode) -> float:
        learns, passes = mode in ("trained", "first"), mode in ("trained", "frozen")
        shortcut = part.shortcut.detach().requires_grad_(passes)
        inputs = [
            shortcut if same else _leaf(value, passes)
            for value, same in zip(part.inputs, part.reads_shortcut, strict=True)
        ]

        def work() -> None:
            with torch.set_grad_enabled(mode != "no_graph"), self.contender.autocast():
                handed = shortcut.clone() if part.add_point.overwrites_shortcut else shortcut
                merged = part.add_point.merge(handed, part.add_point.run(*inputs))
            if merged.requires_grad:
                merged.backward(part.gradient)

        with learning(self.branches[index] if learns else ()):
            return self.stopwatch(work)

    def _trunk(self, first: int | None) -> float:
        self.actions = [drop] * len(self.branches)
        if first is not None:
            self.actions[first] = drop_and_begin
        with learning(self.trunk if first is None else ()):
            return self.stopwatch(lambda: self.contender.loss().backward())

    def _update(self, parameters: Sequence[nn.Parameter]) -> float:
        for parameter in parameters:
            parameter.grad = self.gradients[parameter]
        seconds = self.stopwatch(self.contender.optimizer.step)
        for parameter in parameters:
            parameter.grad = None
        return seconds


def drop_and_begin(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """Dropped, and no gradient passes to what lies before."""
    return begin_gradient(add_point.without_branch(shortcut.detach()))


@contextmanager
def learning(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Only these ask for a gradient, and lose it afterwards."""
    parameters = list(parameters)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


def _leaf(value: Any, learns: bool) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().requires_grad_(learns)
    return value
