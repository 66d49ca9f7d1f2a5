"""Discovery and tracing, most of the time that contracts take, done once for a network and its copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from residualdroppath.core import reference, residual_drop_path
from residualdroppath.core.discovery.found import Discovery
from residualdroppath.core.graph.tracing import TracedCall, trace_call


@contextmanager
def discovered_once(network: nn.Module, example: Any = None) -> Iterator[None]:
    """Inside, discovery in `network` or a copy of it costs nothing, and the twin traces each block once."""
    found = residual_drop_path.discover(network, example)

    def of_copy(other: nn.Module, example: Any = None) -> Discovery:
        return carried_over(found, network, other)

    with (
        patch.object(residual_drop_path, "discover", of_copy),
        patch.object(reference, "discover", of_copy),
        twin_traced_once(),
    ):
        yield


@contextmanager
def twin_traced_once() -> Iterator[None]:
    with patch.object(reference, "trace_call", _trace_once):
        yield


_CALLS: WeakKeyDictionary[nn.Module, dict[tuple, TracedCall]] = WeakKeyDictionary()


def _trace_once(block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> TracedCall:
    calls, key = _CALLS.setdefault(block, {}), tuple(map(_kind, tree_leaves((args, dict(kwargs)))))
    if key not in calls:
        calls[key] = trace_call(block, args, kwargs)
    return calls[key]


def _kind(value: Any) -> tuple:
    """What two calls have in common that one graph serves: all but the values of tensors."""
    return (value.shape, value.dtype) if isinstance(value, Tensor) else (type(value), repr(value))


def carried_over(found: Discovery, network: nn.Module, other: nn.Module) -> Discovery:
    """What was found in one network, for a copy of it."""
    twins = dict(zip(map(id, network.modules()), other.modules(), strict=True))
    return replace(
        found,
        branches=[replace(branch, block=twins[id(branch.block)]) for branch in found.branches],
        outputs_read={twins[id(module)]: read for module, read in found.outputs_read.items()},
        several_forms={twins[id(module)] for module in found.several_forms},
        deep_uses={twins[id(module)]: names for module, names in found.deep_uses.items()},
        idle={(id(twins[module]), name) for module, name in found.idle},
    )
