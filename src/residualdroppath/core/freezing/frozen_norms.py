"""Norms with running statistics in frozen parts: what they use, and what they update."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from ..forward_override import ForwardOverride, own_override
from ..options import FrozenNorm
from ..torch_internals import BatchNorm, is_exporting, own_buffers
from .ownership import Ownership

RUNNING_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def has_running_statistics(module: nn.Module) -> bool:
    """Whether the module normalises by statistics of the batch and keeps running ones."""
    return any(name in RUNNING_STATISTICS[:2] for name, _ in module.named_buffers(recurse=False))


def has_batch_statistics(modules: Iterable[nn.Module]) -> bool:
    """Whether the output for one row depends on the other rows."""
    return any(has_running_statistics(m) or isinstance(m, BatchNorm) for m in modules)


@contextmanager
def scratch_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let modules update copies of their running statistics, and drop the copies.

    The buffers themselves are not written to: autograd may hold them for a backward.
    """
    kept = [(module, dict(own_buffers(module))) for module in modules if has_running_statistics(module)]
    try:
        for module, buffers in kept:
            for name, buffer in buffers.items():
                if buffer is not None:
                    own_buffers(module)[name] = buffer.clone()
        yield
    finally:
        for module, buffers in kept:
            own_buffers(module).update(buffers)


@contextmanager
def norm_mode(module: nn.Module, mode: FrozenNorm) -> Iterator[None]:
    """How a norm with running statistics behaves while frozen.

    `update`: as in training. `batch`: batch statistics, no buffer changes. `running`: as in evaluation.
    """
    if mode == "batch":
        with scratch_buffers([module]):
            yield
    elif mode == "running":
        training, module.training = module.training, False
        try:
            yield
        finally:
            module.training = training
    else:
        yield


def refuse_compiled_norms(model: nn.Module, mode: FrozenNorm) -> None:
    """Raise `ValueError` where a norm would go on updating its statistics: Python cannot reach into `torch.jit`."""
    if mode == "update":
        return
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and has_running_statistics(module):
            raise ValueError(
                f'`frozen_norm` must be "update" for a model with norms compiled by torch.jit ({name}), got {mode!r}; '
                "leave it out, or do not compile that module."
            )


class Rows(Protocol):
    """Which branches some row of the batch drops (`running/row_masks.py`)."""

    def any_row(self, branch: int) -> bool: ...


class FrozenNorms:
    """Which norms with running statistics are frozen, by the iteration in force."""

    def __init__(self, mode: FrozenNorm, rows: Rows):
        self.mode: FrozenNorm = mode
        self.rows = rows
        self.owner_of: dict[nn.Module, int] = {}
        self.frozen: Collection[int] = ()
        self.frozen_by_rows: Collection[int] = ()
        self.installed: list[_NormForward] = []

    def install(self, ownership: Ownership) -> None:
        """Take notice of who owns which norms; nothing to do where frozen norms update as others."""
        if self.mode == "update":
            return
        for owner, modules in ownership.modules.items():
            for norm in filter(has_running_statistics, modules):
                self.owner_of[norm] = owner
                if own_override(norm, _NormForward) is None:
                    forward = _NormForward(norm, self)
                    forward.install()
                    self.installed.append(forward)

    def is_frozen(self, norm: nn.Module) -> bool:
        """Whether nothing that owns the norm learns; by rows, that is known only while running."""
        owner = self.owner_of[norm]
        return owner in self.frozen or (owner in self.frozen_by_rows and not self.rows.any_row(owner))


class _NormForward(ForwardOverride):
    def __init__(self, norm: nn.Module, norms: FrozenNorms):
        super().__init__(norm)
        self.norms = norms

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.module.training and not is_exporting() and self.norms.is_frozen(self.module):
            with norm_mode(self.module, self.norms.mode):
                return self.original(*args, **kwargs)
        return self.original(*args, **kwargs)
