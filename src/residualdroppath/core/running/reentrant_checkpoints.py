"""Activation checkpointing: the reentrant kind loses gradients where parts are frozen, and is refused.

It runs its function under `no_grad`, and the gradients of what is inside exist only if one of its inputs
requires one. In a `dropped_part` iteration the inputs of the first dropped branch do not.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils.checkpoint import CheckpointFunction

from .actions import run_without_graph

if TYPE_CHECKING:
    from .block_forward import BlockForward

    Call = Callable[..., Any]

REMEDY = (
    "Use the other kind: `torch.utils.checkpoint.checkpoint(..., use_reentrant=False)`; for Hugging Face models "
    '`model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})`.'
)


def refuse_reentrant_checkpointing(call: Call) -> Call:
    """Decorator of the call of a block: raise `RuntimeError` around, at and inside a reentrant checkpoint.

    Inside a block it is found out once it has cost the block's output its graph.
    """

    @functools.wraps(call)
    def checked(self: BlockForward, *args: Any, **kwargs: Any) -> Any:
        if not self.module.training or torch.compiler.is_compiling():
            return call(self, *args, **kwargs)
        if not torch.is_grad_enabled():
            if _runs_inside_reentrant_checkpoint():
                raise RuntimeError(_refusal(self))
            return call(self, *args, **kwargs)
        output = call(self, *args, **kwargs)
        outputs = output if isinstance(output, tuple) else (output,)
        returned = [value for value in outputs if isinstance(value, Tensor)]
        if any(getattr(value.grad_fn, "_forward_cls", None) is CheckpointFunction for value in returned):
            raise RuntimeError(_refusal(self))
        given = (*args, *kwargs.values())
        if (
            returned
            and not any(value.requires_grad for value in returned)
            and not any(value is other for value in returned for other in given)
            and _should_have_a_graph(self, returned[0])
        ):
            raise RuntimeError(
                f"A {type(self.module).__name__} has parameters that learn, and returned a tensor without a gradient: "
                "something inside it runs without a graph, as activation checkpointing of the reentrant kind does "
                f"where no input requires a gradient. {REMEDY}"
            )
        return output

    return checked


@contextmanager
def noticing_checkpoints() -> Iterator[list[bool]]:
    """Fills the list it yields when something inside calls the non-reentrant checkpoint: tracing goes through it."""
    noticed: list[bool] = []
    original = torch.utils.checkpoint._checkpoint_without_reentrant_generator

    def generator(*args: Any, **kwargs: Any) -> Any:
        noticed.append(True)
        return original(*args, **kwargs)

    torch.utils.checkpoint._checkpoint_without_reentrant_generator = generator
    try:
        with warnings.catch_warnings():  # the reentrant kind warns that proxies require no gradient
            warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
            yield noticed
    finally:
        torch.utils.checkpoint._checkpoint_without_reentrant_generator = original


def _runs_inside_reentrant_checkpoint() -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            return True
        frame = frame.f_back
    return False


def _should_have_a_graph(forward: BlockForward, output: Tensor) -> bool:
    """Whether some parameter of the block learns, and no branch may have been left out."""
    if is_functorch_wrapped_tensor(output):  # inside `torch.func.vmap`, which keeps the graph to itself
        return False
    all_run = all(state.action in (None, run_without_graph) for state in forward.states.values())
    if not all_run or not any(parameter.requires_grad for parameter in forward.module.parameters()):
        return False
    inside = (vars(module).get("forward") for module in forward.module.modules())
    return not any(isinstance(other, type(forward)) and other is not forward for other in inside)


def _refusal(forward: BlockForward) -> str:
    return (
        f"A {type(forward.module).__name__} runs inside activation checkpointing of the reentrant kind, which loses "
        f"gradients where ResidualDropPath freezes parts of the model. {REMEDY}"
    )
