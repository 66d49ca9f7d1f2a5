"""The forward of a block under `ResidualDropPath`: its own one, unless a state has to act."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..discovery.block_branches import OtherUse, branches_for_call, leave_out_unread
from ..discovery.found import Discovery
from ..discovery.registry import registered_block
from ..forward_override import ForwardOverride, own_override
from ..graph.call_form import form_of, forward_signature, is_number, is_plain
from ..graph.shape_guards import late_guards
from ..graph.trace_errors import UntraceableError
from ..graph.traced_value import UNKNOWN
from ..graph.tracing import TracedCall, inlined_children, trace_call, trace_unknown
from ..torch_internals import is_exporting, noticing_checkpoints, outside_of_graphs, own_children
from .actions import run_without_graph
from .add_point import AddPoint, BranchState
from .reentrant_checkpoints import run_unless_reentrant
from .rewrite import rewrite
from .traced_calls import NOT_FOLLOWED, Rewritten, TracedCalls


class BlockForward(ForwardOverride):
    """Whenever no state acts, and in evaluation mode unless told otherwise, the block's original forward runs."""

    def __init__(self, block: nn.Module, states: Mapping[str, BranchState], discovery: Discovery):
        super().__init__(block)
        self.states = dict(states)
        self.output_may_be_overwritten = False
        self.registered = registered_block(block)  # as when its branches were found, whatever is registered later
        self._signature = forward_signature(block)
        self._calls = TracedCalls(block)
        self.not_followed: dict[str, None] = {}  # why calls run by the block's own forward, in order
        self._attributes = _plain_attributes(block)
        self.compile_options: dict[str, Any] | None = None
        self.paused = False
        self.acts_in_evaluation = False
        self.follow_discovery(discovery)

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
        """Whether some parameter that each call uses learns, no branch is left out, and no block is inside."""
        all_run = all(state.action in (None, run_without_graph) for state in self.states.values())
        if (
            self.several_forms
            or not all_run
            or not any(parameter.requires_grad for parameter in self.module.parameters())
        ):
            return False
        others = (own_override(module, BlockForward) for module in self.module.modules())
        return not any(other is not None and other is not self for other in others)

    def follow_discovery(self, discovery: Discovery) -> None:
        """What is known of the block's use; later, what a call has shown, in the place of what was known before."""
        self.output_may_be_overwritten |= discovery.outputs_may_be_overwritten
        self.outputs_read = discovery.outputs_read.get(self.module)
        self.several_forms = self.module in discovery.several_forms
        self._calls.clear()

    def compile(self, options: dict[str, Any]) -> None:
        """From now on compile branches, and have the states run them in every training iteration."""
        self.compile_options = options
        self._calls.clear()

    def _act(self, *args: Any, **kwargs: Any) -> Any:
        acting = any(state.action is not None for state in self.states.values())
        if not acting and (self.compile_options is None or self.paused):
            return self.original(*args, **kwargs)
        if self.registered is not None:
            return self.registered.forward(self.module, self._add_by_name, *args, **kwargs)
        if self._attributes != (attributes := _plain_attributes(self.module)):
            self._attributes = attributes  # tracing has written them into the graph
            self._calls.clear()
        form, values = form_of(self._signature, args, kwargs)
        result = self._calls.run(form, values, lambda follow: self._rewrite(args, kwargs, follow))
        return self.original(*args, **kwargs) if result is NOT_FOLLOWED else result

    def _add_by_name(self, name: str, shortcut: Tensor, branch: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if name not in self.states:
            raise ValueError(
                f"`add` was called with {name!r} in the forward registered for {type(self.module).__name__}, whose "
                f"branches are {', '.join(map(repr, self.states))}; register it with a branch of that name."
            )
        return AddPoint(self.states[name], branch, lambda s, b: s + b, copies=True)(shortcut, *inputs)

    def _rewrite(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], follow: bool) -> Rewritten | None:
        """The forward that serves calls like this one, traced by it or at first without; None: the block's own."""
        noticed: list[None] = []
        try:
            with noticing_checkpoints(lambda: noticed.append(None)):
                call = self._trace(args, kwargs, follow)
            graph = leave_out_unread(call.graph, self.module, self.outputs_read)
            adds = branches_for_call(graph, self.module, call.form, self.states)
        except (UntraceableError, OtherUse) as error:
            if isinstance(error, OtherUse) and not follow:  # the call itself shows what children pass on
                return self._rewrite(args, kwargs, follow=True)
            self._run_as_it_is(str(error))
            return None
        may_stop = late_guards(graph)
        is_checked = call.returned is not UNKNOWN
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
        return Rewritten(forward, may_stop, is_checked)

    def _trace(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], follow: bool) -> TracedCall:
        """Without running the block where that needs no guess; what children return is checked at the first run."""
        in_training = self.module.training
        form, values = form_of(self._signature, args, kwargs)
        numbers = {name: value for name, value in values.items() if is_number(value)}
        if not follow and all(name in numbers or isinstance(value, Tensor) for name, value in values.items()):
            with contextlib.suppress(UntraceableError):
                return trace_unknown(self.module, form, numbers, may_guess=False, in_training=in_training)
        return trace_call(self.module, args, kwargs, in_training=in_training)

    def _run_as_it_is(self, reason: str) -> None:
        if reason not in self.not_followed:
            self.not_followed[reason] = None
            names = ", ".join(state.name for state in self.states.values())
            warnings.warn(
                f"{type(self.module).__name__} with the residual branches {names} was called in a form that cannot be "
                f"followed: {reason}. Such calls run the block as it is, nothing is dropped there.",
                stacklevel=2,
            )


@outside_of_graphs
def _call_outside_of_graphs(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _plain_attributes(block: nn.Module) -> dict[str, Any]:
    """Numbers, flags, functions and absent children of the block and of what its graph takes in: its constants."""
    constants: dict[str, Any] = {}
    for module in (block, *inlined_children(block)):
        plain = {name: value for name, value in vars(module).items() if is_plain(value)}
        absent = {name: None for name, child in own_children(module).items() if child is None}
        constants[f"{type(module).__name__} {id(module)}"] = {**plain, **absent}
    return constants
