"""The place of one residual add: decides, while the network runs, whether and how its branch runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .fold_scale import FoldTarget


@dataclass
class BranchState:
    """One residual branch at run time; `action` is what its add does, or None: as written."""

    name: str
    index: int
    has_batch_statistics: bool = False
    has_group_norm: bool = False
    action: Action | None = None
    # Dtype of the sum by dtype of the shortcut and autocast: known once the branch has run.
    sum_dtypes: dict[tuple, torch.dtype] = field(default_factory=dict)


@dataclass(frozen=True)
class AddPoint:
    """A state in the place of one add of a rewritten forward.

    `run(*inputs)` computes the branch, `add(shortcut, branch)` is the add with its operator and
    operand order; `copies` says that something downstream may overwrite what a dropped branch hands on,
    `overwrites_shortcut` that the add does so itself. `last` ends the branch, where it may take a factor.
    """

    state: BranchState
    run: Callable[..., Tensor]
    add: Callable[[Tensor, Tensor], Tensor]
    copies: bool
    overwrites_shortcut: bool = False
    last: FoldTarget | None = None

    def __call__(self, shortcut: Tensor, *inputs: Tensor) -> Tensor:
        if self.state.action is None:
            return self.merge(shortcut, self.run(*inputs))
        return self.state.action(self, shortcut, inputs)

    def merge(self, shortcut: Tensor, branch: Tensor, factor: float = 1.0) -> Tensor:
        """The add as written, of the branch times a factor."""
        key = _dtype_key(shortcut)
        if factor == 1.0:
            merged = self.add(shortcut, branch)
        elif shortcut.dtype == branch.dtype and not self.overwrites_shortcut:
            merged = torch.add(shortcut, branch, alpha=factor)  # one pass over memory instead of two
        else:
            merged = self.add(shortcut, branch * factor)
        self.state.sum_dtypes[key] = merged.dtype
        return merged

    def hand_on(self, shortcut: Tensor) -> Tensor:
        """What the add yields without its branch: the shortcut, in the dtype of the sum."""
        dtype = self.state.sum_dtypes.get(_dtype_key(shortcut), shortcut.dtype)
        if dtype != shortcut.dtype:
            return shortcut.to(dtype)
        return shortcut.clone() if self.copies else shortcut


Action = Callable[[AddPoint, Tensor, tuple[Tensor, ...]], Tensor]


def _dtype_key(tensor: Tensor) -> tuple:
    device_type = tensor.device.type
    autocast = (
        device_type != "meta" and torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type)
    )
    return tensor.dtype, autocast
