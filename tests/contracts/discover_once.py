"""Discovery and tracing, most of the time that contracts take, done once for a network and its copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch
from weakref import WeakKeyDictionary

from torch import fx, nn

from residualdroppath.core import reference, residual_drop_path
from residualdroppath.core.discovery.block_branches import trace_block
from residualdroppath.core.discovery.found import Discovery
from residualdroppath.core.graph.call_form import CallForm
from residualdroppath.core.graph.shape_guards import GuardOutcomes


@contextmanager
def discovered_once(network: nn.Module) -> Iterator[None]:
    """Inside, discovery in `network` or a copy of it costs nothing, and the twin traces each block once."""
    found = residual_drop_path.discover(network)

    def of_copy(other: nn.Module) -> Discovery:
        return carried_over(found, network, other)

    with (
        patch.object(residual_drop_path, "discover", of_copy),
        patch.object(reference, "discover", of_copy),
        twin_traced_once(),
    ):
        yield


@contextmanager
def twin_traced_once() -> Iterator[None]:
    with patch.object(reference, "trace_block", _trace_once):
        yield


_GRAPHS: WeakKeyDictionary[nn.Module, dict[tuple, fx.Graph]] = WeakKeyDictionary()


def _trace_once(block: nn.Module, form: CallForm, way: GuardOutcomes, outputs_read: frozenset[int] | None) -> fx.Graph:
    graphs, key = _GRAPHS.setdefault(block, {}), (form.key, way, outputs_read)
    if key not in graphs:
        graphs[key] = trace_block(block, form, way, outputs_read)
    return graphs[key]


def carried_over(found: Discovery, network: nn.Module, other: nn.Module) -> Discovery:
    """What was found in one network, for a copy of it."""
    twins = dict(zip(map(id, network.modules()), other.modules(), strict=True))
    return replace(
        found,
        branches=[replace(branch, block=twins[id(branch.block)]) for branch in found.branches],
        outputs_read={twins[id(module)]: read for module, read in found.outputs_read.items()},
        deep_uses={twins[id(module)]: names for module, names in found.deep_uses.items()},
        idle={(id(twins[module]), name) for module, name in found.idle},
    )
