"""Which modules of a network are alike, so that what is traced from one holds of the others."""

from __future__ import annotations

import functools
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..forward_override import foreign_forward
from ..torch_internals import own_buffers, own_children, own_parameters
from .call_form import is_plain
from .trace_errors import UntraceableError

T = TypeVar("T")

OF_EVERY_MODULE = vars(nn.Module()).keys() - {"training"}  # hooks, and what holds parameters and children


class ModuleKinds:
    """Kinds by class, attributes, shapes and children; valid as long as nothing of the network is replaced.

    An attribute that in every module of a class equals its place in a list, as `layer_idx` of attention layers does,
    is no part of its kind: graphs look it up. What is traced of a forward that decides by one holds of that module
    alone.
    """

    def __init__(self, network: nn.Module):
        self.network = network
        self.place_was_read: bool = False
        self.place_was_used: bool = False
        self._numbers: dict[Hashable, int] = {}  # a short name for each kind
        self._found: dict[Hashable, Any] = {}  # what `once` has found, errors too
        self.forget()

    def forget(self) -> None:
        """Something of the network has changed: modules may be of other kinds."""
        self._kinds: dict[nn.Module, Hashable] = {}
        self._parts: dict[nn.Module, frozenset[int]] = {}  # ids of all that hangs below
        self._place_names: dict[type, set[str]] = {}
        for path, module in self.network.named_modules():
            if own_children(module):
                places = [int(name) for name in path.split(".") if name.isdigit()]
                equal = {name for name, value in vars(module).items() if type(value) is int and value in places}
                self._place_names.setdefault(type(module), equal).intersection_update(equal)

    @contextmanager
    def reading(self) -> Iterator[Callable[[], bool]]:
        """Around a trace; the function returns whether it was decided by a place."""
        before, self.place_was_read = self.place_was_read, False
        try:
            yield lambda: self.place_was_read
        finally:
            self.place_was_read = before

    def once(self, find: Callable[[nn.Module], T], module: nn.Module, use: Hashable = None) -> T:
        """What `find` returns of the first module of this kind, or raises as `UntraceableError`; `use` if it varies."""
        key = use or find, self.of(module)
        if key in self._found:
            found: Any = self._found[key]
        else:
            with self.reading() as was_decided:
                try:
                    found = find(module)
                except UntraceableError as error:
                    found = error
                alone = was_decided()
            if not alone:
                self._found[key] = found
            self.place_was_read |= alone
        if isinstance(found, UntraceableError):
            raise found
        return found

    def of(self, module: nn.Module) -> Hashable:
        """Equal for modules that are alike; a module that holds something twice is of a kind of its own."""
        if module not in self._kinds:
            self._kinds[module] = self._kind(module)
        return self._kinds[module]

    def holds_each_once(self, module: nn.Module) -> bool:
        """Whether nothing below the module hangs there under two names."""
        return self.of(module) is not module

    def places(self, module: nn.Module) -> dict[str, int]:
        """Attributes that equal the place of the module, or of one around it, in a list."""
        own = vars(module)
        return {name: own[name] for name in self._place_names.get(type(module), ()) if name in own}

    def _kind(self, module: nn.Module) -> Hashable:
        if isinstance(module, torch.jit.ScriptModule):
            return module
        children = [child for child in own_children(module).values() if child is not None]
        kinds = {child: self.of(child) for child in children}
        tensors = (*own_parameters(module).values(), *own_buffers(module).values())
        parts = [id(part) for part in (*tensors, *children) if part is not None]
        below = [self._parts.get(child, frozenset()) for child in children]
        all_parts = self._parts[module] = frozenset(parts).union(*below)
        if len(all_parts) < len(parts) + sum(map(len, below)):
            return module
        held = ((name, None if child is None else kinds[child]) for name, child in own_children(module).items())
        description = (*self._description(module), *held)
        return self._numbers.setdefault(description, len(self._numbers))

    def _description(self, module: nn.Module) -> Iterator[Hashable]:
        yield type(module)
        yield type(module).forward
        yield _Itself(foreign_forward(module))
        places = self.places(module)
        for name, value in vars(module).items():
            if name not in OF_EVERY_MODULE and name != "forward":
                yield name, None if name in places else _kind_of(value, module)
        for space in (own_parameters(module), own_buffers(module)):
            yield tuple((name, _kind_of(value, module)) for name, value in space.items())


def _kind_of(value: Any, owner: nn.Module) -> Hashable:
    """Equal for values that a trace cannot tell apart, the elements of tensors aside; of others the identity."""
    if isinstance(value, Tensor):
        return type(value), tuple(value.shape), value.dtype, value.device
    if type(value) in (tuple, list, set):
        return type(value), tuple(_kind_of(item, owner) for item in value)
    if type(value) in (dict, OrderedDict):
        return dict, tuple((_kind_of(key, owner), _kind_of(item, owner)) for key, item in value.items())
    if type(value) is functools.partial:
        return functools.partial, *(_kind_of(each, owner) for each in (value.func, value.args, value.keywords))
    if isinstance(value, types.MethodType) and value.__self__ is owner:
        return types.MethodType, value.__func__
    if is_plain(value):
        return type(value), value if value == value else repr(value)
    return _Itself(value)


@dataclass(frozen=True, eq=False)
class _Itself:
    """Equal for the same object, which it keeps alive, so that no other comes to have its `id`."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def once_of_a_kind(kinds: ModuleKinds | None, find: Callable[[nn.Module], T], module: nn.Module) -> T:
    """`kinds.once(find, module)`, or without kinds what `find` returns."""
    return find(module) if kinds is None else kinds.once(find, module)
