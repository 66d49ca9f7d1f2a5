"""What is found in a module is found in all that are alike, and looked for once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

from torch import nn

from ..graph.module_kinds import ModuleKinds
from ..graph.trace_errors import UntraceableError
from .block_branches import BlockBranches


class SharedBranches:
    """The branches of each kind of module, or why its forward could not be followed."""

    def __init__(self, kinds: ModuleKinds):
        self.kinds = kinds
        self._known: dict[Hashable, BlockBranches | UntraceableError] = {}

    def of(self, module: nn.Module, use: Hashable, find: Callable[[], BlockBranches]) -> BlockBranches:
        """What `find` returns or raises, for a module that is used in this way."""
        key = self.kinds.of(module), use
        if (known := self._known.get(key)) is None:
            with self.kinds.reading() as has_read_place:
                try:
                    known = find()
                except UntraceableError as error:
                    known = error
                if not has_read_place():
                    self._known[key] = known
        if isinstance(known, UntraceableError):
            raise known
        return replace(known, module=module)
