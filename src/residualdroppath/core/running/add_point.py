"""The place of one residual add: decides, while the network runs, whether and how its branch runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .fold_scale import FoldTarget
from .row_masks import RowMasks


@dataclass
class BranchState:
    """One residual branch at run time; `action` is what its add does, or None: as written."""

    name: str
    index: int
    masks: RowMasks = field(default_factory=RowMasks)
    has_batch_statistics: bool = False
    action: Action | None = None
    # Dtype of the sum by dtype of the shortcut and autocast: known once the branch has run.
    sum_dtypes: dict[tuple, torch.dtype] = field(default_factory=dict)

    def dropped_rows(self, rows: int) -> Tensor:
        """Which of this rank's `rows` rows drop the branch, bool[rows] on the CPU."""
        return self.masks.local(self.index, rows)


@dataclass(frozen=True)
class AddPoint:
    """What a rewritten forward calls in the place of one add.

    `run(*inputs)` computes the branch, `add(shortcut, branch)` is the add with its operator and operand order.
    `copies`: a following operation may overwrite what is returned for a dropped branch; `overwrites_shortcut`: the
    add does so itself. `last` is the last layer of the branch, where a factor can be folded into it.
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
        elif self._is_scaled_in_one_pass(shortcut, branch):
            merged = torch.add(shortcut, branch, alpha=factor)
        else:
            merged = self.add(shortcut, branch * factor)
        self.state.sum_dtypes[key] = merged.dtype
        return merged

    def _is_scaled_in_one_pass(self, shortcut: Tensor, branch: Tensor) -> bool:
        """Where dtype and layout of the sum do not depend on the order of its operands: one pass instead of two."""
        same = shortcut.dtype == branch.dtype and shortcut.stride() == branch.stride()
        return same and not self.overwrites_shortcut

    def without_branch(self, shortcut: Tensor) -> Tensor:
        """The sum without the branch: the shortcut, in the dtype of the sum."""
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
