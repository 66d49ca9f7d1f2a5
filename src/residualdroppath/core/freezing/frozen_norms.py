"""Norms with running statistics in frozen parts: what they use, and what they update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from ..forward_override import ForwardOverride

FrozenNorm = Literal["update", "batch", "running"]
RUNNING_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def has_running_statistics(module: nn.Module) -> bool:
    """Whether the module normalises by statistics of the batch and keeps running ones."""
    return any(name in RUNNING_STATISTICS[:2] for name, _ in module.named_buffers(recurse=False))


def has_batch_statistics(modules: Iterable[nn.Module]) -> bool:
    """Whether the output for one row depends on the other rows."""
    return any(has_running_statistics(m) or isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules)


@contextmanager
def scratch_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let modules update copies of their running statistics, and drop the copies.

    The buffers themselves are not written to: autograd may hold them for a backward.
    """
    kept = [(module, dict(module._buffers)) for module in modules if has_running_statistics(module)]
    try:
        for module, buffers in kept:
            for name, buffer in buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.clone()
        yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)


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


class FrozenNorms:
    """Puts `norm_mode` around the forwards of norms for one `dropped_part` iteration."""

    def __init__(self, mode: FrozenNorm):
        self.mode: FrozenNorm = mode
        self._installed: list[_NormForward] = []

    def install(self, roots: Iterable[nn.Module], is_frozen: Callable[[], bool] = lambda: True) -> None:
        """Norms among `roots`, while `is_frozen()` says so when they run."""
        if self.mode == "update":
            return
        for module in roots:
            if has_running_statistics(module):
                forward = _NormForward(module, self.mode, is_frozen)
                forward.install()
                self._installed.append(forward)

    def uninstall(self) -> None:
        for forward in self._installed:
            forward.uninstall()
        self._installed.clear()


class _NormForward(ForwardOverride):
    def __init__(self, norm: nn.Module, mode: FrozenNorm, is_frozen: Callable[[], bool]):
        super().__init__(norm)
        self.mode: FrozenNorm = mode
        self.is_frozen = is_frozen

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.module.training and self.is_frozen():
            with norm_mode(self.module, self.mode):
                return self.original(*args, **kwargs)
        return self.original(*args, **kwargs)
