"""Which arguments of a forward are values of its graph, and which are constants of it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
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

    @property
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


def forward_signature(module: nn.Module) -> inspect.Signature:
    """The signature of the forward that the class defines, without `self`."""
    signature = inspect.signature(type(module).forward)
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


def _element(name: str, place: int) -> str:
    return f"{name}_{place}"
