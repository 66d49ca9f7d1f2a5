"""The rewritten forwards of a network, which blocks that are alike share."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import nn

from ..graph.module_kinds import ModuleKinds
from .rewrite import RewrittenForward


@dataclass(frozen=True, eq=False)
class Template:
    """A rewritten forward, and what a block has to know to run it.

    `inlined` are the paths of descendants whose forwards are part of it; `may_stop`: guards come after operations;
    `is_checked`: children are known to return what it takes them to; `checkpoints`: all of it is to be recomputed.
    """

    forward: RewrittenForward
    inlined: frozenset[str]
    may_stop: bool
    is_checked: bool
    checkpoints: bool


class SharedRewrites:
    """By kind of block and use of it, the templates made so far."""

    def __init__(self, kinds: ModuleKinds):
        self.kinds = kinds
        self._known: dict[Hashable, list[Template]] = {}

    def of(self, block: nn.Module, use: Hashable) -> list[Template]:
        """Those for blocks like this one that are used alike; to be added to."""
        return self._known.setdefault((self.kinds.of(block), use), [])
