"""The graphs of a block by what its calls have in common; a call that none of them serves is traced."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..graph.call_form import CallForm
from ..graph.shape_guards import GuardFailed
from ..random_states import random_states_restored
from ..torch_internals import unseen_by_modes

MOST_KEPT = 32
MANY = 10


@dataclass
class Rewritten:
    """A block's forward with states in the place of its residual adds.

    `may_stop`: guards come after operations. `is_checked`: children return what the graph takes them to return.
    """

    forward: Callable[..., Any]
    may_stop: bool
    is_checked: bool


class TracedCalls:
    """Runs the graph that serves a call; the least recently used of many are dropped."""

    def __init__(self, module: nn.Module):
        self.module = module
        self._known: dict[Hashable, list[Rewritten | None]] = {}
        self._num_traced = 0

    def clear(self) -> None:
        """Forget all graphs, for what they were made from has changed."""
        self._known.clear()

    def run(self, form: CallForm, values: Mapping[str, Any], trace: Callable[[bool], Rewritten | None]) -> Any:
        """What the graph for this call returns, or `NOT_FOLLOWED`: `trace` makes it, None where there can be none.

        The first for calls of this form needs no call to be followed (`trace(False)`), further ones do.
        """
        known = self._known.setdefault(form.key, [])
        for rewritten in known:
            if rewritten is None:
                return NOT_FOLLOWED
            try:
                result = self._run(rewritten, values)
            except GuardFailed:
                continue
            if rewritten is not known[0]:
                known.remove(rewritten)
                known.insert(0, rewritten)
            return result
        with random_states_restored(self.module), unseen_by_modes():
            rewritten = trace(bool(known))
        self._note_trace()
        if rewritten is None:
            self._known[form.key] = [None]
            return NOT_FOLLOWED
        known.insert(0, rewritten)
        del known[MOST_KEPT:]
        while len(self._known) > MOST_KEPT:
            del self._known[next(iter(self._known))]
        try:
            return self._run(rewritten, values)
        except GuardFailed:
            if not rewritten.is_checked:  # made without a call: now by this one
                return self.run(form, values, trace)
            known.remove(rewritten)  # decided by what no two runs have in common, such as random numbers
            return NOT_FOLLOWED

    def _run(self, rewritten: Rewritten, values: Mapping[str, Any]) -> Any:
        if rewritten.is_checked and not rewritten.may_stop:
            return rewritten.forward(self.module, **values)
        with random_states_restored(self.module, after=GuardFailed), _statistics_kept(self.module):
            result = rewritten.forward(self.module, **values)
        rewritten.is_checked = True
        return result

    def _note_trace(self) -> None:
        self._num_traced += 1
        if self._num_traced == MANY:
            warnings.warn(
                f"{type(self.module).__name__} was traced for {MANY} kinds of calls: its forward decides by values "
                "that differ from call to call (sizes, or numbers read from tensors); each costs time. Pad inputs to "
                f"few sizes, or register the block: `register_block`.",
                stacklevel=2,
            )


NOT_FOLLOWED = object()


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """What a run that stopped half-way has counted in buffers is undone."""
    buffers = [(buffer, torch.empty_like(buffer).copy_(buffer)) for buffer in module.buffers()]
    try:
        yield
    except GuardFailed:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        raise
