"""Activation checkpointing: the reentrant kind loses gradients where parts are frozen, and is refused.

It runs its function under `no_grad`, and the gradients of what is inside exist only if one of its inputs
requires one. In a `dropped_part` iteration the inputs of the first dropped branch do not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..torch_internals import ReentrantCheckpoint, is_in_functorch_transform, is_returned_by_reentrant_checkpoint

REMEDY = (
    "Use the other kind: `torch.utils.checkpoint.checkpoint(..., use_reentrant=False)`; for Hugging Face models "
    '`model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})`.'
)


def run_unless_reentrant(
    block: nn.Module,
    run: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    needs_graph: Callable[[], bool],
) -> Any:
    """`run(*args, **kwargs)`; `RuntimeError` around, at and inside a reentrant checkpoint.

    Inside a block it is found out once it has cost the output its graph: `needs_graph` is whether something in the
    block learns, so that what it returns must have one.
    """
    if torch.compiler.is_compiling():
        return run(*args, **kwargs)
    if not torch.is_grad_enabled():
        if _runs_inside_reentrant_checkpoint():
            raise RuntimeError(_refusal(block))
        return run(*args, **kwargs)
    output = run(*args, **kwargs)
    if isinstance(output, Tensor) and output.requires_grad and not is_returned_by_reentrant_checkpoint(output):
        return output  # as mostly
    outputs = output if isinstance(output, tuple) else (output,)
    returned = [value for value in outputs if isinstance(value, Tensor)]
    if any(map(is_returned_by_reentrant_checkpoint, returned)):
        raise RuntimeError(_refusal(block))
    given = (*args, *kwargs.values())
    if (
        returned
        and not any(value.requires_grad for value in returned)
        and not any(value is other for value in returned for other in given)
        and not is_in_functorch_transform(returned[0])  # `torch.func.vmap` keeps the graph to itself
        and needs_graph()
    ):
        raise RuntimeError(
            f"A {type(block).__name__} has parameters that learn, and returned a tensor without a gradient: "
            "something inside it runs without a graph, as activation checkpointing of the reentrant kind does "
            f"where no input requires a gradient. {REMEDY}"
        )
    return output


def _runs_inside_reentrant_checkpoint() -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is ReentrantCheckpoint.forward.__code__:
            return True
        frame = frame.f_back
    return False


def _refusal(block: nn.Module) -> str:
    return (
        f"A {type(block).__name__} runs inside activation checkpointing of the reentrant kind, which loses "
        f"gradients where ResidualDropPath freezes parts of the model. {REMEDY}"
    )
