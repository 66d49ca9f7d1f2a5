"""Random states of the devices that a module is on, put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def random_states_restored(module: nn.Module, after: type[Exception] | None = None) -> Iterator[None]:
    """Random states are as before: at the end, or only `after` an error."""
    cuda = sorted({tensor.device for tensor in module.parameters() if tensor.is_cuda}, key=str)
    before = torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in cuda]
    restores = after is None
    try:
        yield
    except Exception as error:
        restores = after is None or isinstance(error, after)
        raise
    finally:
        if restores:
            torch.set_rng_state(before[0])
            for device, state in zip(cuda, before[1], strict=True):
                torch.cuda.set_rng_state(state, device)
