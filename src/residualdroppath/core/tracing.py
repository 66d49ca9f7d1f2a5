"""One module's own `forward` as a torch.fx graph, every child module a leaf."""

from __future__ import annotations

import inspect
import operator
import random
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class UntraceableError(Exception):
    """The forward of a module cannot be written as a graph; the message says why."""


def _inplace(function: Any):
    def record(self: fx.Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


class _InplaceProxy(fx.Proxy):
    # fx falls back from `x += y` to `x = x + y`, which promotes dtypes where the former does not.
    __iadd__ = _inplace(operator.iadd)
    __isub__ = _inplace(operator.isub)
    __imul__ = _inplace(operator.imul)
    __itruediv__ = _inplace(operator.itruediv)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, torch.Tensor) and not isinstance(a, nn.Parameter) and not self._is_own(a):
            # fx would keep what was made while tracing, as an attribute of the module.
            raise TypeError("it makes a tensor of its own, which tracing would turn into a constant")
        return super().create_arg(a)

    def _is_own(self, tensor: torch.Tensor) -> bool:
        return any(tensor is own for own in [*self.root.buffers(), *self.tensor_attrs])

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _InplaceProxy(node, self)


def forward_signature(module: nn.Module) -> inspect.Signature:
    """The signature of the forward that the class defines, without `self`."""
    signature = inspect.signature(type(module).forward)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def trace_forward(module: nn.Module, constants: dict[str, Any] | None = None) -> fx.Graph:
    """The graph of `module`'s own forward in training mode.

    Arguments named in `constants` are fixed to the value given and don't appear in the graph; by
    default those are all that have a default value, so `if mask is None:` takes its usual side.
    Raises `UntraceableError` where the forward depends on values that only running it can tell.
    """
    if constants is None:
        constants = defaults(forward_signature(module))
    mode = module.training
    random_states = torch.random.get_rng_state(), random.getstate()
    try:
        module.training = True  # the graph stands in for the forward in training mode only
        graph = _Tracer().trace(module, concrete_args=dict(constants))
        if not torch.equal(random_states[0], torch.random.get_rng_state()) or random_states[1] != random.getstate():
            raise ValueError("it draws random numbers, which tracing would turn into constants")
        _forget_arguments(graph, constants)
        _erase_unused_items(graph)
        graph.lint()
    except Exception as error:  # tracing runs foreign code on proxies, and so raises anything
        raise UntraceableError(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error
    finally:
        module.training = mode
        torch.random.set_rng_state(random_states[0])
        random.setstate(random_states[1])
    return graph


def defaults(signature: inspect.Signature) -> dict[str, Any]:
    """Arguments that may be left out, with their default values."""
    return {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def _forget_arguments(graph: fx.Graph, constants: dict[str, Any]) -> None:
    """Erase the placeholders of fixed arguments, and the assertions fx made of them."""
    signature_order = [node for node in graph.nodes if node.op == "placeholder"]
    for node in signature_order:
        if _argument_name(node, constants) in constants:
            for user in _all_users(node):
                graph.erase_node(user)
            graph.erase_node(node)


def _erase_unused_items(graph: fx.Graph) -> None:
    """Erase what unpacking a shape left unused, lest it count as a use."""
    for node in reversed(graph.nodes):
        if not node.users and node.op == "call_function" and node.target in (operator.getitem, getattr):
            graph.erase_node(node)


def _argument_name(node: fx.Node, constants: Iterable[str]) -> str:
    # fx names the placeholder of a fixed argument `mask_1`.
    target = str(node.target)
    stem = target.rpartition("_")[0]
    return stem if target not in constants and stem in constants else target


def _all_users(node: fx.Node) -> list[fx.Node]:
    found: dict[fx.Node, None] = {}
    for user in node.users:
        for further in [*_all_users(user), user]:
            found.setdefault(further)
    return list(found)
