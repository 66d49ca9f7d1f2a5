"""Bytes that a forward keeps for the backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class SavedBytes:
    """What autograd has saved so far; each storage counts once, however many tensors share it."""

    def __init__(self, given: set[int]):
        self._given = given
        self._storages: dict[int, torch.UntypedStorage] = {}  # held, lest an address be used again

    @property
    def total(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())

    def keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._given:
            self._storages[storage.data_ptr()] = storage
        return tensor.detach()  # what an operation returned would hold the operation, which holds it


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[SavedBytes]:
    """Counts what is saved for the backward inside, without the parameters and buffers of `model` themselves."""
    given = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved = SavedBytes(given)
    with torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor):
        yield saved
