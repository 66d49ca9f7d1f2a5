"""Floating-point operations of a forward, and the share of each residual branch.

The FLOPs of a branch are what a forward saves that drops it,

    FLOPs(branch i) = FLOPs(full forward) - FLOPs(forward with branch i dropped),

counted in training mode: two for each multiply-add of convolutions, matrix products and attention, none for the
rest. A dropped branch does not run and nothing else changes, so that difference is what the branch itself runs, and
one forward tells it for all branches at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..core.residual_drop_path import ResidualDropPath
from ..core.running.add_point import Action, AddPoint


@dataclass(frozen=True)
class Flops:
    """FLOPs of one forward; `branches` in the order of `rdp.branches`, None where a branch did not run."""

    total: int
    branches: tuple[int | None, ...]

    @property
    def shares(self) -> tuple[float | None, ...]:
        """FLOPs of each branch over those of the whole forward."""
        return tuple(None if own is None or not self.total else own / self.total for own in self.branches)


class CountsDisagreeError(RuntimeError):
    """Two forwards over the same input and the same random numbers do not run the same operations."""


def count_flops(model: nn.Module, /, *args: Any, **kwargs: Any) -> Flops:
    """FLOPs of `model(*args, **kwargs)` in training mode, and of each of its residual branches.

    Works on the meta device too. Parameters, buffers, modes and random generators stay as they are.
    """
    rdp = ResidualDropPath(model, 0.0)
    try:
        return count_flops_under(rdp, *args, **kwargs)
    finally:
        rdp.remove()


def count_flops_under(rdp: ResidualDropPath, /, *args: Any, **kwargs: Any) -> Flops:
    """`count_flops` for a model that is under a `ResidualDropPath`, whose iteration stays."""
    with _training_left_as_it_is(rdp.model) as rewind:
        with rdp.paused(), _no_gradients(rdp.model), flop_counter() as counter:
            rdp.model(*args, **kwargs)
        total = counter.get_total_flops()
        for _ in range(2):  # a block with conditions on shapes may run in vain until it knows which way they go
            rewind()
            own: list[int | None] = [None] * len(rdp.branches)
            counter = flop_counter()
            actions = [_count_into(own, index, counter) for index in range(len(own))]
            with rdp.acting(actions), _no_gradients(rdp.model), counter:
                rdp.model(*args, **kwargs)
            if counter.get_total_flops() == total:
                return Flops(total, tuple(own))
    raise CountsDisagreeError(f"forwards differ: {total} and {counter.get_total_flops()} FLOPs.")


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, with formulas for the attention that it lacks."""
    return FlopCounterMode(display=False, custom_mapping=ATTENTION)


def attention_flops(query: Size, key: Size, value: Size, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Scores, then their product with the values: 2 * 2 * B * H * N * N * D if all shapes are [B, H, N, D].

    Keys and values may have fewer heads. A causal mask is not a discount, as in PyTorch's own formulas.
    """
    batch, heads, num_queries, width = query
    return 2 * batch * heads * num_queries * key[-2] * (width + value[-1])


_UNCOUNTED = (  # not all are in every version of PyTorch
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math_for_mps",
)
ATTENTION = {
    operator: attention_flops for name in _UNCOUNTED if (operator := getattr(torch.ops.aten, name, None)) is not None
}


def _count_into(own: list[int | None], index: int, counter: FlopCounterMode) -> Action:
    """The branch runs as written, and what it takes is added to `own[index]`."""

    def counted(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        before = counter.get_total_flops()
        branch = add_point.run(*inputs)
        own[index] = (own[index] or 0) + counter.get_total_flops() - before
        return add_point.add(shortcut, branch)

    return counted


@contextmanager
def _no_gradients(model: nn.Module) -> Iterator[None]:
    """No graph, and no parameter that asks for one: the counter cannot take a view of one."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        with torch.no_grad():
            yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def _training_left_as_it_is(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Training mode; yields a function that takes buffers and random numbers back to the start."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    cuda = sorted({buffer.device for buffer in (*model.parameters(), *model.buffers()) if buffer.is_cuda}, key=str)
    random_states = torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in cuda]

    def rewind() -> None:
        torch.set_rng_state(random_states[0])
        for device, state in zip(cuda, random_states[1], strict=True):
            torch.cuda.set_rng_state(state, device)
        for buffer, before in buffers:
            buffer.data.copy_(before)

    try:
        model.train()
        yield rewind
    finally:
        rewind()
        for module, mode in modes:
            module.training = mode
