"""The forward of a block under `ResidualDropPath`: its own one, unless a state has to act."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..discovery.block_branches import branches_for_call, trace_block
from ..discovery.registry import registered_block, registering_call
from ..forward_override import ForwardOverride, own_override
from ..graph.call_form import CallForm, form_of, forward_signature, is_plain
from ..graph.shape_guards import GuardOutcomes, has_conditions, run_under_guards
from ..graph.tracing import UntraceableError, inlined_children
from ..torch_internals import is_exporting, noticing_checkpoints, outside_of_graphs, own_children
from .actions import run_without_graph
from .add_point import AddPoint, BranchState
from .reentrant_checkpoints import run_unless_reentrant
from .rewrite import rewrite


class BlockForward(ForwardOverride):
    """Whenever no state acts, and in evaluation mode unless told otherwise, the block's original forward runs."""

    def __init__(
        self,
        block: nn.Module,
        states: Mapping[str, BranchState],
        *,
        output_may_be_overwritten: bool,
        outputs_read: frozenset[int] | None = None,
    ):
        super().__init__(block)
        self.states = dict(states)
        self.output_may_be_overwritten = output_may_be_overwritten
        self.outputs_read = outputs_read
        self.registered = registered_block(block)  # as when its branches were found, whatever is registered later
        self._signature = forward_signature(block)
        self._rewritten: dict[tuple, Rewritten] = {}
        self._outcomes: dict[tuple, GuardOutcomes] = {}  # by form of the call, the one that was right last time
        self._attributes = _plain_attributes(block)
        self.compile_options: dict[str, Any] | None = None
        self.paused = False
        self.acts_in_evaluation = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (self.module.training or self.acts_in_evaluation):
            return self.original(*args, **kwargs)
        if is_exporting():  # what is exported is the full network, not one plan
            return self.original(*args, **kwargs)
        if torch.compiler.is_dynamo_compiling():  # of the user's: a graph of its own for each plan would never end
            return _call_outside_of_graphs(self._act, *args, **kwargs)
        if not self.module.training:
            return self._act(*args, **kwargs)
        return run_unless_reentrant(self.module, self._act, args, kwargs, self._needs_graph)

    def _needs_graph(self) -> bool:
        """Whether some parameter of the block learns, no branch may have been left out, and no block is inside."""
        all_run = all(state.action in (None, run_without_graph) for state in self.states.values())
        if not all_run or not any(parameter.requires_grad for parameter in self.module.parameters()):
            return False
        others = (own_override(module, BlockForward) for module in self.module.modules())
        return not any(other is not None and other is not self for other in others)

    def compile(self, options: dict[str, Any]) -> None:
        """From now on compile branches, and have the states run them in every training iteration."""
        self.compile_options = options
        self._rewritten.clear()

    def _act(self, *args: Any, **kwargs: Any) -> Any:
        acting = any(state.action is not None for state in self.states.values())
        if not acting and (self.compile_options is None or self.paused):
            return self.original(*args, **kwargs)
        if self.registered is not None:
            return self.registered.forward(self.module, self._add_by_name, *args, **kwargs)
        form, values = form_of(self._signature, args, kwargs)
        outcomes = self._outcomes.get(key := form.key, ())
        if not (rewritten := self._rewritten_for(form, outcomes)).has_conditions:
            return rewritten.forward(self.module, **values)
        run = lambda outcomes: self._rewritten_for(form, outcomes).forward(self.module, **values)  # noqa: E731
        self._outcomes[key], result = run_under_guards(self.module, outcomes, run)
        return result

    def _add_by_name(self, name: str, shortcut: Tensor, branch: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if name not in self.states:
            raise ValueError(
                f"`add` was called with {name!r} in the forward registered for {type(self.module).__name__}, whose "
                f"branches are {', '.join(map(repr, self.states))}; register it with a branch of that name."
            )
        return AddPoint(self.states[name], branch, lambda s, b: s + b, copies=True)(shortcut, *inputs)

    def _rewritten_for(self, form: CallForm, outcomes: GuardOutcomes) -> Rewritten:
        if self._attributes != (attributes := _plain_attributes(self.module)):
            self._attributes = attributes  # tracing has written them into the graph
            self._rewritten.clear()
        if (key := (form.key, outcomes)) not in self._rewritten:
            self._rewritten[key] = self._rewrite(form, outcomes)
        return self._rewritten[key]

    def _rewrite(self, form: CallForm, outcomes: GuardOutcomes) -> Rewritten:
        noticed: list[None] = []
        try:
            with noticing_checkpoints(lambda: noticed.append(None)):
                graph = trace_block(self.module, form, outcomes, self.outputs_read, in_training=self.module.training)
        except UntraceableError as error:
            raise RuntimeError(
                f"{type(self.module).__name__}.forward, called with {form.describe()}, cannot be traced ({error}), "
                f"unlike the call in which its branches were found. Register its class: "
                f"`{registering_call(self.module)}`, with its own forward and branches."
            ) from error
        conditions = has_conditions(graph)
        adds = branches_for_call(graph, self.module, form, self.states)
        forward = rewrite(
            graph,
            self.module,
            adds,
            self.states,
            output_may_be_overwritten=self.output_may_be_overwritten,
            compile_options=self.compile_options,
        )
        if noticed:  # in the block's own forward; now all of it is recomputed
            forward = functools.partial(checkpoint, forward, use_reentrant=False)
        return Rewritten(forward, conditions)


@outside_of_graphs
def _call_outside_of_graphs(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


@dataclass(frozen=True)
class Rewritten:
    """A block's forward with states in the place of its residual adds."""

    forward: Callable[..., Any]
    has_conditions: bool


def _plain_attributes(block: nn.Module) -> dict[str, Any]:
    """Numbers, flags, functions and absent children of the block and of what its graph takes in: its constants."""
    constants: dict[str, Any] = {}
    for module in (block, *inlined_children(block)):
        plain = {name: value for name, value in vars(module).items() if is_plain(value)}
        absent = {name: None for name, child in own_children(module).items() if child is None}
        constants[f"{type(module).__name__} {id(module)}"] = {**plain, **absent}
    return constants
