"""Gradients averaged over processes: those of what learns, where DistributedDataParallel sends all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn

__all__ = ["exchange_what_learns"]
Frozen = Callable[[], Mapping[str, nn.Parameter]]


def exchange_what_learns(wrapped: nn.parallel.DistributedDataParallel, frozen: Frozen) -> None:
    """Of each bucket of gradients, send only those of parameters that are not `frozen()` in the iteration in force.

        >>> rdp = ResidualDropPath(model)
        >>> ddp = DistributedDataParallel(model, find_unused_parameters=True)
        >>> exchange_what_learns(ddp, rdp.frozen_parameters)

    The plan says which, so all processes send the same. Which gradients a backward pass makes would not do: rows of
    one process may use what those of another do not. DistributedDataParallel leaves `grad` of unused ones as it was.
    Weights are those of DistributedDataParallel's own exchange, up to rounding.

    Args:
        wrapped: the network in DistributedDataParallel; it can have one hook of communication, and this is one.
        frozen: parameters without a gradient in the iteration in force, by name, the same in all processes.

    Raises:
        ValueError: `wrapped` was made without `find_unused_parameters=True`, or with `static_graph=True`.
    """
    if not wrapped.find_unused_parameters or wrapped.static_graph:
        raise ValueError(
            "`wrapped` must be a DistributedDataParallel with find_unused_parameters=True and static_graph=False, got "
            f"find_unused_parameters={wrapped.find_unused_parameters}, static_graph={wrapped.static_graph}: what is "
            "frozen or dropped gets no gradient, and it is something else in each iteration. Construct it so."
        )
    skipped: set[int] = set()

    def exchange(state: None, bucket: Any) -> Any:  # it compares annotations with classes, and takes these
        if bucket.index() == 0:
            skipped.clear()
            skipped.update(map(id, frozen().values()))
        pairs = zip(bucket.gradients(), bucket.parameters(), strict=True)
        return averaged(bucket.buffer(), [gradient for gradient, of in pairs if id(of) not in skipped])

    del exchange.__annotations__["bucket"], exchange.__annotations__["return"]
    wrapped.register_comm_hook(None, exchange)


def averaged(buffer: Tensor, gradients: list[Tensor]) -> torch.futures.Future[Tensor]:
    """`buffer`, of which these views are averaged over processes; all of it at once, if they are all of it."""
    if not gradients:
        unchanged: torch.futures.Future[Tensor] = torch.futures.Future()
        unchanged.set_result(buffer)
        return unchanged
    whole = sum(gradient.numel() for gradient in gradients) == buffer.numel()
    sent = buffer if whole else torch.cat([gradient.flatten() for gradient in gradients])
    sent.div_(distributed.get_world_size())
    work = distributed.all_reduce(sent, async_op=True)
    assert work is not None

    def put_back(future: torch.futures.Future[Any]) -> Tensor:
        if not whole:
            pieces = sent.split([gradient.numel() for gradient in gradients])
            for gradient, piece in zip(gradients, pieces, strict=True):
                gradient.copy_(piece.view_as(gradient))
        return buffer

    return work.get_future().then(put_back)
