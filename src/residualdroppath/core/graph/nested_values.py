"""Values in lists, tuples, dicts, slices and dataclasses, as forwards are given and return them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch


def map_values(value: Any, function: Callable[[Any], Any]) -> Any:
    """The function of all that lists, tuples, dicts and slices hold; other values as one."""
    kind = type(value)
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
