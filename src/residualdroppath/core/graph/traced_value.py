"""What stands for the values of a forward while it is traced."""

from __future__ import annotations

import dis
import inspect
import operator
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx


class CannotFollow(Exception):
    """Something in a forward that tracing recognises and refuses."""


class NoLength(CannotFollow, TypeError):
    """Python asks for a length, as a hint only when it is a `TypeError` that there is none."""


class _Unknown:
    """The value of a stand-in that no call has shown."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()
ONLY_A_CALL = "that only a call shows; pass `example=`"


def _inplace(function: Any):
    def record(self: TracedValue, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


class TracedValue(fx.Proxy):
    """A value of the forward that is traced: `value` in the call that is followed, `UNKNOWN` where there is none.

    Where Python needs a plain value (`if`, `len`, `int`, `for`), it gets the one of the call, and a guard in the
    graph checks it whenever the graph runs.
    """

    tracer: Any
    value: Any

    def __init__(self, node: fx.Node, tracer: Any, value: Any = UNKNOWN):
        self.__dict__.update(node=node, tracer=tracer, value=value)

    def __hash__(self) -> int:
        if isinstance(self.value, (int, float, str, tuple)):
            raise TypeError("a value of a forward that is traced has no hash")  # einops then computes without a cache
        return id(self)

    def __getattr__(self, k: str) -> Any:
        if k == "_is_param":  # asked by `isinstance(value, nn.Parameter)`
            return self.value is not UNKNOWN and getattr(self.value, k, False)
        if self.value is UNKNOWN:
            if k.startswith("__"):
                raise AttributeError(k)
            return TracedAttribute(self, k)
        value = getattr(self.value, k)  # raises as the value itself does
        if callable(value):
            return TracedAttribute(self, k)
        return self.tracer.create_proxy("call_function", getattr, (self, k), {})

    def __setattr__(self, name: str, value: Any) -> None:
        self.tracer.create_proxy("call_function", setattr, (self, name, value), {})

    # fx falls back from `x += y` to `x = x + y`, which promotes dtypes where the former does not.
    __iadd__ = _inplace(operator.iadd)
    __isub__ = _inplace(operator.isub)
    __imul__ = _inplace(operator.imul)
    __itruediv__ = _inplace(operator.itruediv)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) and type(self.value) in (tuple, list) and not _holds_stand_in(key):
            return type(self.value)(self[i] for i in range(len(self))[key])  # of what a child returned, say
        if (given := self.tracer.passed_on(self, key)) is not None:
            return given
        return self.tracer.create_proxy("call_function", operator.getitem, (self, key), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, int) and self.value is UNKNOWN:
            raise CannotFollow(f"it assigns to an element of what may be a list {ONLY_A_CALL}")
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})

    def __bool__(self) -> bool:
        return self.tracer.to_bool(self)

    def __len__(self) -> int:
        if self.value is not UNKNOWN:
            return self._guarded("len", "")
        if (length := self.tracer.guess_length(self)) is None:
            raise NoLength(f"it reads the length of a value {ONLY_A_CALL}")
        return length

    def __int__(self) -> int:
        return self._guarded("int", "it turns a value into a number of Python")

    def __index__(self) -> int:
        if self.value is UNKNOWN and (rank := self.tracer.guess_rank(self)) is not None:
            return rank
        return self._guarded("index", "it uses a value as a number of Python")

    def __float__(self) -> float:
        return self._guarded("float", "it turns a value into a number of Python")

    def __str__(self) -> str:
        return repr(self) if self.value is UNKNOWN else str(self.value)

    def __format__(self, spec: str) -> str:
        return repr(self) if self.value is UNKNOWN else format(self._plain(), spec)

    def __contains__(self, item: Any) -> bool:
        return bool(self.tracer.create_proxy("call_function", operator.contains, (self, item), {}))

    def __round__(self, digits: int | None = None) -> Any:
        return self.tracer.create_proxy("call_function", round, (self, digits), {})

    def keys(self) -> Any:
        """Of a dict whose keys the call has shown, these; as fx otherwise."""
        return list(iter(self)) if isinstance(self.value, dict) else TracedAttribute(self, "keys")()

    def __iter__(self) -> Iterator[Any]:
        if self.value is UNKNOWN:
            frame = inspect.currentframe()
            return self._unpacked(frame.f_back if frame else None)
        if isinstance(self.value, dict):
            return iter(self._guarded("keys", ""))
        if isinstance(self.value, (tuple, list, torch.Tensor)):
            return iter([self[i] for i in range(len(self))])
        return iter(self.tracer.create_proxy("call_function", list, (self,), {}))

    def _unpacked(self, frame: types.FrameType | None) -> Iterator[Any]:
        """Items of a value that no call has shown, as many as the line of the forward unpacks."""
        if (unpacks := _unpacks(frame)) is None or unpacks == (0, True, 0):
            if (length := self.tracer.guess_length(self)) is not None:
                return iter([self[i] for i in range(length)])
        if unpacks is None:
            raise CannotFollow(f"it loops over a value whose length {ONLY_A_CALL.removeprefix('that ')}")
        before, rest, after = unpacks
        if not rest:
            return iter([self[i] for i in range(before)])
        if before == after == 0:
            return iter([Starred(self)])
        ends = [self[i] for i in range(-after, 0)]
        return iter([*(self[i] for i in range(before)), Starred(self[slice(before, -after or None)]), *ends])

    def _guarded(self, reading: str, what: str) -> Any:
        if self.value is UNKNOWN:
            raise CannotFollow(f"{what} {ONLY_A_CALL}")
        return self.tracer.guard(self, reading)

    def _plain(self) -> Any:
        """The value where it is a number or text, guarded."""
        return self._guarded("value", "") if isinstance(self.value, (bool, int, float, str)) else self.value


def is_stand_in(value: Any) -> bool:
    return issubclass(type(value), TracedValue)


def _holds_stand_in(key: slice) -> bool:
    return any(map(is_stand_in, (key.start, key.stop, key.step)))


class TracedAttribute(TracedValue):
    """An attribute of a value. Most are methods, and called: the node that reads it is made when it is needed."""

    def __init__(self, root: TracedValue, attr: str):
        self.__dict__.update(root=root, attr=attr, tracer=root.tracer, _node=None, value=UNKNOWN)

    @property
    def node(self) -> fx.Node:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.__dict__["_node"] is None:
            arguments = (self.__dict__["root"], self.__dict__["attr"])
            self.__dict__["_node"] = self.tracer.create_proxy("call_function", getattr, arguments, {}).node
        return self.__dict__["_node"]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tracer.create_proxy("call_method", self.attr, (self.root, *args), kwargs)


class TracedPlace(TracedValue):
    """A number that says where in a list a module is: the node that looks it up is made when it is needed."""

    def __init__(self, tracer: Any, path: str, number: int):
        self.__dict__.update(tracer=tracer, path=path, value=number, _node=None)

    @property
    def node(self) -> fx.Node:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.__dict__["_node"] is None:
            self.__dict__["_node"] = self.tracer.place_node(self.__dict__["path"])
        return self.__dict__["_node"]

    def __hash__(self) -> int:
        return hash(int(self))


class Starred:
    """`*x.shape[:-1]` in a tuple, of a length that no call has shown: `joined` turns the tuple into a value."""

    def __init__(self, items: TracedValue):
        self.items = items


def joined(values: tuple[Any, ...]) -> Any:
    """A tuple in which items are `Starred`, as the sum of its parts."""
    total: Any = None
    for value in values:
        part = _as_tuple(value.items) if isinstance(value, Starred) else (value,)
        total = part if total is None else total + part
    return total


def _as_tuple(value: TracedValue) -> Any:
    return value.tracer.create_proxy("call_function", tuple, (value,), {})


def _unpacks(frame: types.FrameType | None) -> tuple[int, bool, int] | None:
    """How the instruction that runs in a frame unpacks: items before the rest, whether there is one, items after."""
    if frame is None:
        return None
    code, place = frame.f_code.co_code, frame.f_lasti  # dis.get_instructions would decode the whole function
    argument, before = code[place + 1], place - 2
    while before >= 0 and code[before] == dis.EXTENDED_ARG:
        argument |= code[before + 1] << 4 * (place - before)
        before -= 2
    match dis.opname[code[place]]:
        case "UNPACK_SEQUENCE":
            return argument, False, 0
        case "UNPACK_EX":
            return argument & 0xFF, True, argument >> 8
        case "LIST_EXTEND" | "CALL_FUNCTION_EX":
            return 0, True, 0
        case _:
            return None
