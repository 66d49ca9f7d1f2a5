"""Values in lists, tuples, dicts, slices and dataclasses, as forwards are given and return them."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

HOLD_NOTHING = frozenset({int, float, bool, str, types.NoneType, torch.Tensor, torch.dtype, torch.device})


def map_values(value: Any, function: Callable[[Any], Any]) -> Any:
    """The function of all that lists, tuples, dicts and slices hold; other values as one."""
    kind = type(value)
    if kind in HOLD_NOTHING:
        return function(value)
    if kind is tuple or kind is list:
        return kind(map_values(item, function) for item in value)
    if kind is dict:
        return {key: map_values(item, function) for key, item in value.items()}
    if kind is slice:
        return slice(*(map_values(item, function) for item in (value.start, value.stop, value.step)))
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return kind(*(map_values(item, function) for item in value))
    if dataclasses.is_dataclass(kind):
        mapped = {field.name: map_values(getattr(value, field.name), function) for field in dataclasses.fields(kind)}
        if issubclass(kind, dict):  # Hugging Face's outputs
            return kind(**mapped)
        same = object.__new__(kind)  # rather than by `copy.copy`, which the class may define for values of its own
        vars(same).update({**vars(value), **mapped})
        return same
    return function(value)


def detached(value: Any) -> Any:
    """Copies of tensors, in lists, tuples and dicts too, without their graph: the forward may write to them."""
    return map_values(value, lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v)


def detached_with_originals(values: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """As `detached`, and a function from these copies, as long as nobody has written to them, to the originals."""
    originals: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            copy = value.detach().clone()
            originals[id(copy)] = copy, value
            return copy
        return value

    def original(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and id(value) in originals and value._version == 0:
            return originals[id(value)][1]
        return value

    return {name: map_values(value, copied) for name, value in values.items()}, original


def own_objects(value: Any) -> Any:
    """The same with copies of objects that a forward may write to, as a cache of keys, and of the tensors in them."""
    copies: dict[int, tuple[Any, Any]] = {}

    def own(item: Any) -> Any:
        if not _may_be_written(item):
            return item
        if id(item) not in copies:
            same = object.__new__(type(item))
            copies[id(item)] = item, same
            vars(same).update({name: map_values(held, copied) for name, held in vars(item).items()})
        return copies[id(item)][1]

    def copied(item: Any) -> Any:
        return item.detach().clone() if isinstance(item, torch.Tensor) else own(item)

    return map_values(value, own)


def _may_be_written(value: Any) -> bool:
    if isinstance(value, (nn.Module, torch.Tensor, type, enum.Enum, types.FunctionType, types.ModuleType)):
        return False
    is_plain_class = type(value).__new__ is object.__new__ and hasattr(value, "__dict__")
    return is_plain_class and type(value).__module__.partition(".")[0] not in ("torch", "builtins")
