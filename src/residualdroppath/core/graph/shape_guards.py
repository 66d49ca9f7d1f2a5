"""Conditions on shapes and dtypes in a forward: a graph holds for one set of outcomes, which is checked as it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from .node_kinds import is_metadata

GuardOutcomes = tuple[bool, ...]  # how the conditions of a forward turned out, in order
MOST_OUTCOMES = 32


class GuardFailed(Exception):
    """A condition does not turn out as in the graph that is running."""

    def __init__(self, outcomes: GuardOutcomes):
        super().__init__(f"a condition on a shape or dtype asks for another graph, {outcomes}")
        self.outcomes = outcomes


def check_guard(condition: Any, before: GuardOutcomes, outcome: bool) -> None:
    """The node of a graph that stands for `if condition:`, the earlier ones having gone as in `before`."""
    if bool(condition) != outcome:
        raise GuardFailed((*before, not outcome))


def depends_on_metadata_only(node: fx.Node) -> bool:
    """Whether the shapes and dtypes of tensors determine the value of a node."""
    if is_metadata(node):
        return True
    if node.op not in ("call_function", "call_method") or not node.all_input_nodes:
        return False
    return all(depends_on_metadata_only(source) for source in node.all_input_nodes)


def has_conditions(graph: fx.Graph) -> bool:
    return any(node.target is check_guard for node in graph.nodes)


def run_under_guards(
    module: nn.Module, outcomes: GuardOutcomes, run: Callable[[GuardOutcomes], Any]
) -> tuple[GuardOutcomes, Any]:
    """Call `run` with one set of outcomes after another, beginning with `outcomes`, until they hold; gives both.

    An attempt that went astray leaves nothing behind in `module` and in the random generators.
    """
    for _ in range(MOST_OUTCOMES):
        try:
            with _undone_if_astray(module):
                return outcomes, run(outcomes)
        except GuardFailed as other:
            outcomes = other.outcomes
    raise RuntimeError(f"{type(module).__name__} has conditions on shapes that change from call to call: {outcomes}.")


@contextmanager
def _undone_if_astray(module: nn.Module) -> Iterator[None]:
    cuda = sorted({tensor.device for tensor in module.parameters() if tensor.is_cuda}, key=str)
    random_states = torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in cuda]
    buffers = [(buffer, buffer.clone()) for name, buffer in module.named_buffers() if name.rpartition(".")[2] in STATES]
    try:
        yield
    except GuardFailed:
        torch.set_rng_state(random_states[0])
        for device, state in zip(cuda, random_states[1], strict=True):
            torch.cuda.set_rng_state(state, device)
        for buffer, before in buffers:
            buffer.copy_(before)
        raise


STATES = ("running_mean", "running_var", "num_batches_tracked")
