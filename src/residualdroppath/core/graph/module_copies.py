"""Shallow copies of a module and its descendants, whose forward can be traced while the originals stay in use.

A copy has the attributes of its original, but tensors are what stands for them in the trace, a child that is called
goes to the tracer, and what the forward sets is set on the copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ..torch_internals import BUFFERS, CHILDREN, HOOKS_OF_MODULE, PARAMETERS, call_instead
from .module_kinds import ModuleKinds

COPIED = (list, dict, set, OrderedDict)
OF_TORCH = (PARAMETERS, BUFFERS, CHILDREN, *HOOKS_OF_MODULE)  # hooks run around the forward that is traced


class ModuleCopies:
    """The copies made for one trace.

    `tensor_at(path, tensor)` is what stands for a parameter, buffer or other tensor attribute;
    `call(module, copy, path, args, kwargs)` is called in the place of a child. `number_at(path, number)` is what stands
    for an attribute that numbers a module, of those in `kinds`.
    """

    def __init__(
        self,
        root: nn.Module,
        tensor_at: Callable[..., Any],
        call: Callable[..., Any],
        number_at: Callable[..., Any],
        *,
        in_training: bool,
        kinds: ModuleKinds | None = None,
    ):
        held_once = kinds is not None and kinds.holds_each_once(root)
        # Of what hangs twice, the first path.
        self._paths = {} if held_once else {id(module): name for name, module in root.named_modules()}
        self.tensor_at = tensor_at
        self.call = call
        self.number_at = number_at
        self.in_training = in_training
        self.kinds = kinds
        self._made: dict[int, tuple[nn.Module, nn.Module, dict[str, Any]]] = {}

    def of(self, module: nn.Module, path: str = "") -> nn.Module:
        """The copy of a module, always the same. The one of the root, at path "", has its own forward."""
        if id(module) in self._made:
            return self._made[id(module)][1]
        path = self._paths.get(id(module), path)
        if isinstance(module, torch.jit.ScriptModule):
            copied = nn.Module()
            own = dict(vars(copied))
        else:
            copied, own = object.__new__(type(module)), attributes_of(module)
        for name, value in own.items():
            if isinstance(value, torch.Tensor):
                own[name] = self.tensor_at(_join(path, name), value)
        own |= {name: OrderedDict() for name in HOOKS_OF_MODULE if name in own}
        for name in (PARAMETERS, BUFFERS):
            if name in own:
                own[name] = _Lazy(own[name], path, self.tensor_at)
        if CHILDREN in own:
            own[CHILDREN] = _Lazy(own[CHILDREN], path, lambda at, child: self.of(child, at))
        for name, number in self.kinds.places(module).items() if self.kinds else ():
            own[name] = self.number_at(_join(path, name), number)
        own.pop("forward", None)
        if self.in_training:
            own["training"] = True
        vars(copied).update(own)
        if path:
            recorded = lambda *args, **kwargs: self.call(module, copied, path, args, kwargs)  # noqa: E731
            vars(copied)["forward"] = recorded
            call_instead(copied, recorded)
        own = dict(vars(copied))
        self._made[id(module)] = module, copied, own
        return copied

    def changed(self) -> list[str]:
        """Names of attributes that the forward has set or changed."""
        names: dict[str, None] = {}
        for module, copied, before in self._made.values():
            after = vars(copied)
            for name in {*after, *before}:
                value = after.get(name, self)
                if value is not before.get(name, self) or (isinstance(value, _Lazy) and value.written):
                    names.setdefault(name)
                elif type(value) in COPIED and name not in OF_TORCH and name in vars(module):
                    if not _same_items(value, vars(module)[name]):
                        names.setdefault(name)
        return sorted(names)


class _Lazy(dict):
    """A namespace of a module, whose values are made when they are read."""

    def __init__(self, raw: dict[str, Any], path: str, made: Callable[[str, Any], Any]):
        super().__init__(raw)
        self.path = path
        self.made = made
        self.written = False

    def __getitem__(self, name: str) -> Any:
        raw = super().__getitem__(name)
        return raw if raw is None else self.made(_join(self.path, name), raw)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default

    def values(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (self[name] for name in self)

    def items(self) -> Iterator[tuple[str, Any]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ((name, self[name]) for name in self)

    def __setitem__(self, name: str, value: Any) -> None:
        self.written = True
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        self.written = True
        super().__delitem__(name)


def attributes_of(module: nn.Module) -> dict[str, Any]:
    """The attributes, with copies of lists, dicts and sets of the module's own: writing to one leaves it as it is."""
    own = dict(vars(module))
    return {k: v.copy() if type(v) in COPIED and k not in OF_TORCH else v for k, v in own.items()}


def _same_items(first: Any, second: Any) -> bool:
    if len(first) != len(second):
        return False
    if isinstance(first, dict):
        return all(name in second and value is second[name] for name, value in first.items())
    return first == second if isinstance(first, set) else all(a is b for a, b in zip(first, second, strict=True))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
