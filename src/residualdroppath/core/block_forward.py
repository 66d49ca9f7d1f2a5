"""The forward of a block under `ResidualDropPath`: its own one, unless a unit has to act."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from .discovery import name_adds
from .instance_forward import InstanceForward
from .registry import registered_block
from .residual_add import find_residual_adds
from .rewrite import rewrite
from .tracing import VARIADIC, forward_signature, trace_forward
from .unit import Junction, ResidualUnit

PLAIN = (bool, int, float, str, type(None), types.FunctionType, types.BuiltinFunctionType)


class BlockForward(InstanceForward):
    """Whenever no unit acts, and always in evaluation mode, the block's original forward runs."""

    def __init__(self, block: nn.Module, units: Mapping[str, ResidualUnit], *, output_may_be_overwritten: bool):
        super().__init__(block)
        self.units = dict(units)
        self.output_may_be_overwritten = output_may_be_overwritten
        self._signature = forward_signature(block)
        self._required = _required_positional(self._signature)
        self._rewritten: dict[tuple, Callable[..., Any]] = {}
        self._attributes = _plain_attributes(block)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.module.training or all(unit.action is None for unit in self.units.values()):
            return self.original(*args, **kwargs)
        registered = registered_block(self.module)
        if registered is not None:
            return registered.forward(self.module, self._add_by_name, *args, **kwargs)
        if not kwargs and len(args) == self._required:
            return self._specialised({})(self.module, *args)
        args, kwargs, constants = self._split(args, kwargs)
        return self._specialised(constants)(self.module, *args, **kwargs)

    def _add_by_name(self, name: str, shortcut: Tensor, branch: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        unit = self.units[name if len(self.units) > 1 else ""]
        return Junction(unit, branch, lambda s, b: s + b, copies=True)(shortcut, *inputs)

    def _split(self, args: tuple, kwargs: dict) -> tuple[tuple, dict, dict[str, Any]]:
        """Tensors to hand over, and optional arguments that a graph is made for."""
        bound = self._signature.bind(*args, **kwargs)
        constants: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            optional = parameter.default is not inspect.Parameter.empty
            if optional and name in bound.arguments and not _holds_tensor(bound.arguments[name]):
                value = bound.arguments.pop(name)
                if value is not parameter.default:
                    constants[name] = value
            elif optional and name in bound.arguments:
                constants[name] = Tensor  # a placeholder of the graph
        positional = [
            name
            for name, parameter in self._signature.parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name in bound.arguments
        ]
        if any(parameter.kind in VARIADIC for parameter in self._signature.parameters.values()):
            return bound.args, bound.kwargs, constants
        return (), {name: bound.arguments[name] for name in positional}, constants

    def _specialised(self, given: dict[str, Any]) -> Callable[..., Any]:
        """The rewritten forward for one choice of optional arguments (a value, or `Tensor`)."""
        if self._attributes != (attributes := _plain_attributes(self.module)):
            self._attributes = attributes  # tracing has written them into the graph
            self._rewritten.clear()
        key = tuple((name, repr(value)) for name, value in given.items())
        if key not in self._rewritten:
            self._rewritten[key] = self._rewrite(given)
        return self._rewritten[key]

    def _rewrite(self, given: dict[str, Any]) -> Callable[..., Any]:
        constants = {
            name: given.get(name, parameter.default)
            for name, parameter in self._signature.parameters.items()
            if parameter.default is not inspect.Parameter.empty and given.get(name) is not Tensor
        }
        graph = trace_forward(self.module, constants)
        adds = name_adds(graph, find_residual_adds(graph, self.module)[0], self.module)
        if adds.keys() != self.units.keys():
            block = type(self.module).__name__
            raise RuntimeError(
                f"{block}.forward, called with {', '.join(given) or 'its default arguments'}, adds other residual "
                f"branches ({sorted(adds)}) than were found in it ({sorted(self.units)}). Register its class: "
                f"`residualdroppath.register_block({block}, forward, branches)`."
            )
        return rewrite(graph, self.module, adds, self.units, output_may_be_overwritten=self.output_may_be_overwritten)


def _required_positional(signature: inspect.Signature) -> int:
    """The number of arguments of the plainest call, or -1 where calls need a closer look."""
    parameters = signature.parameters.values()
    if any(p.kind in VARIADIC or (p.kind is p.KEYWORD_ONLY and p.default is p.empty) for p in parameters):
        return -1
    return sum(p.default is p.empty for p in parameters)


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_holds_tensor(item) for item in value)
    return isinstance(value, Tensor)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return isinstance(value, PLAIN)


def _plain_attributes(block: nn.Module) -> dict[str, Any]:
    """Numbers, flags, functions and absent children of the block: constants in a traced graph."""
    plain = {name: value for name, value in vars(block).items() if name != "training" and _is_plain(value)}
    absent = {name: None for name, child in block._modules.items() if child is None}
    return {**plain, **absent}
