"""Whether attributes that a graph has taken for constants have changed."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..graph.call_form import is_plain
from ..torch_internals import own_children


@dataclass
class _Seen:
    """A module with its attributes and children as they were, and the plain ones among them by name."""

    module: nn.Module
    spaces: tuple[dict[str, Any], dict[str, nn.Module | None]]
    values: list[Any]
    plain: dict[str, Any]


class AttributeWatch:
    """Looks at numbers, flags, functions and absent children of a block and of what its graphs have taken in."""

    def __init__(self, block: nn.Module):
        self._seen = [_look(block)]

    def add(self, module: nn.Module) -> None:
        """Look at the attributes of this module too."""
        if all(seen.module is not module for seen in self._seen):
            self._seen.append(_look(module))

    def changed(self) -> bool:
        """Whether something is not what it was when this was called before."""
        found = False
        for seen in self._seen:  # mostly the same objects, which is found out fast
            own, children = seen.spaces
            same = len(own) + len(children) == len(seen.values)
            if not same or not all(map(operator.is_, (*own.values(), *children.values()), seen.values)):
                before, after = seen.plain, _look(seen.module)
                seen.values, seen.plain, seen.spaces = after.values, after.plain, after.spaces
                found |= before != after.plain
        return found

    def modes(self) -> tuple[bool, ...]:
        """Which of the modules are in training mode."""
        return tuple([seen.module.training for seen in self._seen])


def _look(module: nn.Module) -> _Seen:
    own, children = vars(module), own_children(module)
    plain = {name: value for name, value in own.items() if is_plain(value) and name != "training"}
    absent = {name: None for name, child in children.items() if child is None}
    return _Seen(module, (own, children), [*own.values(), *children.values()], {**plain, **absent})
