"""Which arguments of a forward are values of its graph, and which are constants of it."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

PLAIN = (bool, int, float, str, type(None), torch.dtype, types.FunctionType, types.BuiltinFunctionType)
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class CallForm:
    """The form of a call: which arguments are values of the graph.

    `values` names the arguments that carry tensors (or objects that only running code can read);
    `constants` holds all others, those left at their default included. An element of `*args` is
    called after its place, one of `**kwargs` by its key.
    """

    signature: inspect.Signature
    values: tuple[str, ...]
    constants: Mapping[str, Any]

    @functools.cached_property
    def key(self) -> tuple:
        """Equal for calls that one graph can serve."""
        return self.values, tuple((name, repr(value)) for name, value in self.constants.items())

    def arguments(self, values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments of a call with these values; what may be left out is."""
        given = {**self.constants, **values}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                elements = []
                while (element := _element(name, len(elements))) in given:
                    elements.append(given.pop(element))
                args = [*kwargs.values(), *elements] if elements else args
                kwargs = {} if elements else kwargs
            elif parameter.kind is parameter.VAR_KEYWORD:
                kwargs.update(given)
            elif parameter.kind is parameter.POSITIONAL_ONLY:
                args.append(given.pop(name))
            else:
                kwargs[name] = given.pop(name)
        optional = defaults(self.signature)
        return args, {
            name: value for name, value in kwargs.items() if name not in optional or value is not optional[name]
        }

    def describe(self) -> str:
        constants = [f"{name}={value!r}" for name, value in self.constants.items()]
        return ", ".join([*self.values, *constants]) or "no arguments"


class KnownForms:
    """The forms of calls by the types of their arguments, each found out once."""

    def __init__(self, signature: inspect.Signature):
        self.signature = signature
        self._known: dict[tuple, tuple[CallForm, list[tuple[str, Any]]]] = {}

    def form_of(self, args: tuple, kwargs: Mapping[str, Any]) -> tuple[CallForm, dict[str, Any]]:
        """As the function of this name."""
        try:
            key = (*map(_simple_kind, args), *((name, _simple_kind(value)) for name, value in kwargs.items()))
            if key not in self._known:
                self._known[key] = self._arranged(args, kwargs)
        except _NotSimple:
            return form_of(self.signature, args, kwargs)
        form, places = self._known[key]
        return form, {name: args[place] if type(place) is int else kwargs[place] for name, place in places}

    def _arranged(self, args: tuple, kwargs: Mapping[str, Any]) -> tuple[CallForm, list[tuple[str, Any]]]:
        """The form of calls like this one, and the place of each of its values: a number, or the name it is given."""
        marks = {place: [place] for place, value in {**dict(enumerate(args)), **kwargs}.items() if not _is_fixed(value)}
        marked_args = tuple(marks.get(place, value) for place, value in enumerate(args))
        form, values = form_of(self.signature, marked_args, {name: marks.get(name, v) for name, v in kwargs.items()})
        return form, [(name, mark[0]) for name, mark in values.items()]


class _NotSimple(Exception):
    """A value whose type does not decide whether it is one of the graph."""


def _simple_kind(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.Tensor
    if _is_fixed(value):
        return value
    if is_number(value):
        return int  # as any number
    raise _NotSimple


def _is_fixed(value: Any) -> bool:
    return value is None or isinstance(value, (bool, str))


def forward_signature(module: nn.Module) -> inspect.Signature:
    """The signature of the forward that the class defines, without `self`."""
    return _signature_of(type(module).forward)


@functools.lru_cache(maxsize=4096)
def _signature_of(forward: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(forward)
    parameters = list(signature.parameters.values())
    takes_self = parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL  # a decorator's `wrapper(*args, **kwargs)`
    return signature.replace(parameters=parameters[int(takes_self) :])


def plainest_form(signature: inspect.Signature) -> CallForm:
    """The call that gives required arguments only: tensors, as far as one can tell."""
    required = [
        name for name, parameter in signature.parameters.items()
        if parameter.default is parameter.empty and parameter.kind not in VARIADIC
    ]  # fmt: skip
    if not required:
        required = [_element(name, 0) for name, p in signature.parameters.items() if p.kind is p.VAR_POSITIONAL]
    return CallForm(signature, tuple(required), defaults(signature))


def form_of(signature: inspect.Signature, args: tuple, kwargs: Mapping[str, Any]) -> tuple[CallForm, dict[str, Any]]:
    """The form of a call, and its values by name."""
    bound = signature.bind(*args, **kwargs)
    given: dict[str, Any] = {}
    for name, argument in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            given.update({_element(name, place): element for place, element in enumerate(argument)})
        elif kind is inspect.Parameter.VAR_KEYWORD:
            given.update(argument)
        else:
            given[name] = argument
    values = {name: value for name, value in given.items() if not is_plain(value) or is_number(value)}
    constants = {name: value for name, value in {**defaults(signature), **given}.items() if name not in values}
    return CallForm(signature, tuple(values), constants), values


def defaults(signature: inspect.Signature) -> dict[str, Any]:
    """Arguments that may be left out, with their default values."""
    return {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def is_plain(value: Any) -> bool:
    """Whether the value can be a constant of a graph: numbers, text, flags, functions and tuples of them."""
    if isinstance(value, tuple):
        return all(is_plain(item) for item in value)
    return isinstance(value, PLAIN)


def is_number(value: Any) -> bool:
    """Whether the value is a number that a graph takes as an input, guarded where Python reads it."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def numbers_in(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values of a call that are numbers."""
    return {name: value for name, value in values.items() if is_number(value)}


def _element(name: str, place: int) -> str:
    return f"{name}_{place}"
