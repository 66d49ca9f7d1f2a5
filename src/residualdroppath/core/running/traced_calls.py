"""The graphs of a block by what its calls have in common; a call that none of them serves is traced."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from ..graph.shape_guards import GuardFailed
from ..random_states import random_states_restored
from ..torch_internals import unseen_by_modes
from .shared_rewrites import Template

MOST_KEPT = 32
MANY = 10


@dataclass
class Rewritten:
    """A template's forward for one block, with its states; `is_checked` from the first run on."""

    template: Template
    forward: Callable[..., Any]
    is_checked: bool


class Source(Protocol):
    """Where templates for the calls of one form come from, None standing for the block's own forward."""

    def shared(self) -> Sequence[Template]:
        """Those that blocks like this one have made."""
        ...

    def trace(self, follow: bool) -> Template | None:
        """One made for this call, by following it or, at first, without."""
        ...

    def of(self, template: Template) -> Rewritten:
        """The template's forward for this block."""
        ...


class TracedCalls:
    """Runs the graph that serves a call; the least recently used of many are dropped."""

    def __init__(self, module: nn.Module):
        self.module = module
        self._known: dict[Hashable, list[Rewritten | None]] = {}
        self._num_traced = 0

    def clear(self) -> None:
        """Forget all graphs, for what they were made from has changed."""
        self._known.clear()

    def run(self, form: Hashable, values: Mapping[str, Any], source: Source) -> Any:
        """What the graph for this call returns, or `NOT_FOLLOWED`.

        The first for calls of this form needs no call to be followed (`source.trace(False)`), further ones do.
        """
        known = self._known.setdefault(form, [])
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
        tried = {rewritten.template for rewritten in known if rewritten}
        for template in source.shared():
            if template not in tried:
                tried.add(template)
                rewritten = source.of(template)
                with contextlib.suppress(GuardFailed):
                    result = self._run(rewritten, values)
                    self._keep(form, rewritten)
                    return result
        with random_states_restored(self.module), unseen_by_modes():
            template = source.trace(bool(tried))
        self._note_trace()
        if template is None:
            self._known[form] = [None]
            return NOT_FOLLOWED
        self._keep(form, rewritten := source.of(template))
        try:
            return self._run(rewritten, values)
        except GuardFailed:
            if not rewritten.is_checked:  # made without a call: now by this one
                return self.run(form, values, source)
            known.remove(rewritten)  # decided by what no two runs have in common, such as random numbers
            return NOT_FOLLOWED

    def _keep(self, form: Hashable, rewritten: Rewritten) -> None:
        self._known[form].insert(0, rewritten)
        del self._known[form][MOST_KEPT:]
        while len(self._known) > MOST_KEPT:
            del self._known[next(iter(self._known))]

    def _run(self, rewritten: Rewritten, values: Mapping[str, Any]) -> Any:
        if rewritten.is_checked and not rewritten.template.may_stop:
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
