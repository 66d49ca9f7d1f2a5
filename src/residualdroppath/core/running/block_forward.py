"""The forward of a block under `ResidualDropPath`: its own one, unless a state has to act."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..discovery.block_branches import OtherUse, branches_for_call
from ..discovery.found import Discovery
from ..discovery.registry import registered_block
from ..discovery.unread_outputs import leave_out_unread
from ..forward_override import ForwardOverride, own_override
from ..graph.call_form import CallForm, KnownForms, forward_signature, numbers_in
from ..graph.graph_code import copy_of
from ..graph.shape_guards import late_guards
from ..graph.trace_errors import UntraceableError
from ..graph.traced_value import UNKNOWN
from ..graph.tracing import TracedCall, inlined_paths, trace_call, trace_kind, trace_unknown
from ..torch_internals import is_exporting, outside_of_graphs
from .actions import run_without_graph
from .add_point import AddPoint, BranchState
from .attribute_watch import AttributeWatch
from .reentrant_checkpoints import run_unless_reentrant
from .rewrite import rewrite
from .shared_rewrites import SharedRewrites, Template
from .traced_calls import NOT_FOLLOWED, Rewritten, TracedCalls


class BlockForward(ForwardOverride):
    """Whenever no state acts, and in evaluation mode unless told otherwise, the block's original forward runs."""

    def __init__(
        self, block: nn.Module, states: Mapping[str, BranchState], discovery: Discovery, shared: SharedRewrites
    ):
        super().__init__(block)
        self.shared = shared
        self.states = dict(states)
        self.output_may_be_overwritten = False
        self.registered = registered_block(block)  # as when its branches were found, whatever is registered later
        self._forms = KnownForms(forward_signature(block))
        self._calls = TracedCalls(block)
        self.not_followed: dict[str, None] = {}  # why calls run by the block's own forward, in order
        self.attributes = AttributeWatch(block)
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
        acting = [True for state in self.states.values() if state.action is not None]
        if not acting and (self.compile_options is None or self.paused):
            return self.original(*args, **kwargs)
        if self.registered is not None:
            return self.registered.forward(self.module, self._add_by_name, *args, **kwargs)
        if self.attributes.changed():  # tracing has written them into the graphs
            self._calls.clear()
            self.shared.kinds.forget()
        form, values = self._forms.form_of(args, kwargs)
        key = form.key, self.attributes.modes()
        result = self._calls.run(key, values, _TemplatesOfCall(self, form, values, args, kwargs))
        return self.original(*args, **kwargs) if result is NOT_FOLLOWED else result

    def _add_by_name(self, name: str, shortcut: Tensor, branch: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if name not in self.states:
            raise ValueError(
                f"`add` was called with {name!r} in the forward registered for {type(self.module).__name__}, whose "
                f"branches are {', '.join(map(repr, self.states))}; register it with a branch of that name."
            )
        return AddPoint(self.states[name], branch, lambda s, b: s + b, copies=True)(shortcut, *inputs)

    def run_as_it_is(self, reason: str) -> None:
        if reason not in self.not_followed:
            self.not_followed[reason] = None
            names = ", ".join(state.name for state in self.states.values())
            warnings.warn(
                f"{type(self.module).__name__} with the residual branches {names} was called in a form that cannot be "
                f"followed: {reason}. Such calls run the block as it is, nothing is dropped there.",
                stacklevel=2,
            )


@dataclass
class _TemplatesOfCall:
    """Where the forwards come from that may serve calls of a block like this one."""

    block: BlockForward
    form: CallForm
    values: Mapping[str, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def shared(self) -> list[Template]:
        block = self.block
        use = block.module.training, block.outputs_read, block.output_may_be_overwritten
        return block.shared.of(block.module, (self.form.key, tuple(block.states), *use))

    def of(self, template: Template) -> Rewritten:
        block = self.block
        for path in template.inlined:
            block.attributes.add(block.module.get_submodule(path))
        forward = template.forward.of(block.module, block.states, block.compile_options)
        if template.checkpoints:
            forward = functools.partial(checkpoint, forward, use_reentrant=False)
        return Rewritten(template, forward, template.is_checked)

    def trace(self, follow: bool) -> Template | None:
        block, module = self.block, self.block.module
        with block.shared.kinds.reading() as has_read_place:
            try:
                call = self._trace(follow)
                graph = leave_out_unread(call.graph, module, block.outputs_read)
                adds = branches_for_call(graph, module, call.form, block.states, block.shared.kinds)
            except (UntraceableError, OtherUse) as error:
                if isinstance(error, OtherUse) and not follow:  # the call itself shows what children pass on
                    return self.trace(follow=True)
                block.run_as_it_is(str(error))
                return None
            inlined, may_stop = frozenset(inlined_paths(graph)), late_guards(graph)
            template = Template(
                rewrite(graph, module, adds, output_may_be_overwritten=block.output_may_be_overwritten),
                inlined,
                may_stop,
                is_checked=call.returned is not UNKNOWN,
                checkpoints=call.checkpoints,
            )
            if not has_read_place():
                self.shared().append(template)
        return template

    def _trace(self, follow: bool) -> TracedCall:
        """Without running the block where that needs no guess; what children return is checked at the first run."""
        module, kinds = self.block.module, self.block.shared.kinds
        form, numbers = self.form, numbers_in(self.values)
        if not follow and all(name in numbers or isinstance(value, Tensor) for name, value in self.values.items()):
            with contextlib.suppress(UntraceableError):
                if module.training and not (call := trace_kind(module, form, numbers, kinds)).guesses:
                    return replace(call, graph=copy_of(call.graph)[0])
                return trace_unknown(module, form, numbers, may_guess=False, in_training=module.training, kinds=kinds)
        return trace_call(module, self.args, self.kwargs, in_training=module.training, kinds=kinds)


@outside_of_graphs
def _call_outside_of_graphs(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)
