"""The residual unit: decides, while the network runs, whether and how its branch runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .last_layer import LastLayer, scaled_parameters
from .plan import Plan


class RowMasks:
    """The row-by-row draw of the plan in force (`granularity="sample"`), for this rank's rows."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self._masks: dict[int, Tensor] = {}
        self._last_rows = 0

    def set_plan(self, plan: Plan | None) -> None:
        self.plan = plan
        self._masks.clear()

    def local(self, branch: int, rows: int) -> Tensor:
        """Which of this rank's `rows` rows drop the branch, bool[rows] on the CPU."""
        rank, ranks = _rank_and_ranks()
        self._last_rows = rows
        return self._of(rows * ranks)[branch, rank * rows : (rank + 1) * rows]

    def any_row(self, branch: int) -> bool:
        """Whether some row, on any rank, drops the branch; for the rows seen last."""
        return bool(self._of(self._last_rows * _rank_and_ranks()[1])[branch].any())

    def _of(self, global_rows: int) -> Tensor:
        assert self.plan is not None
        if global_rows not in self._masks:
            self._masks[global_rows] = self.plan.mask(global_rows)
        return self._masks[global_rows]


@dataclass
class ResidualUnit:
    """One residual branch at run time; `action` is what its add does, or None: as written."""

    name: str
    index: int
    has_batch_statistics: bool = False
    has_group_norm: bool = False
    action: Action | None = None
    # Dtype of the sum by dtype of the shortcut and autocast: known once the branch has run.
    sum_dtypes: dict[tuple, torch.dtype] = field(default_factory=dict)


@dataclass(frozen=True)
class Junction:
    """A unit in the place of one add of a rewritten forward.

    `run(*inputs)` computes the branch, `add(shortcut, branch)` is the add with its operator and
    operand order; `copies` says that something downstream may overwrite what a dropped branch hands on,
    `overwrites_shortcut` that the add does so itself. `last` ends the branch, where it may take a factor.
    """

    unit: ResidualUnit
    run: Callable[..., Tensor]
    add: Callable[[Tensor, Tensor], Tensor]
    copies: bool
    overwrites_shortcut: bool = False
    last: LastLayer | None = None

    def __call__(self, shortcut: Tensor, *inputs: Tensor) -> Tensor:
        if self.unit.action is None:
            return self.merge(shortcut, self.run(*inputs))
        return self.unit.action(self, shortcut, inputs)

    def merge(self, shortcut: Tensor, branch: Tensor, factor: float = 1.0) -> Tensor:
        """The add as written, of the branch times a factor."""
        key = _dtype_key(shortcut)
        if factor == 1.0:
            merged = self.add(shortcut, branch)
        elif shortcut.dtype == branch.dtype and not self.overwrites_shortcut:
            merged = torch.add(shortcut, branch, alpha=factor)  # one pass over memory instead of two
        else:
            merged = self.add(shortcut, branch * factor)
        self.unit.sum_dtypes[key] = merged.dtype
        return merged

    def hand_on(self, shortcut: Tensor) -> Tensor:
        """What the add yields without its branch: the shortcut, in the dtype of the sum."""
        dtype = self.unit.sum_dtypes.get(_dtype_key(shortcut), shortcut.dtype)
        if dtype != shortcut.dtype:
            return shortcut.to(dtype)
        return shortcut.clone() if self.copies else shortcut


Action = Callable[[Junction, Tensor, tuple[Tensor, ...]], Tensor]


def drop(junction: Junction, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """The branch does not run."""
    return junction.hand_on(shortcut)


def scale_by(factor: float) -> Action:
    """The branch times a factor: 1 / keep_prob in `drop_path` iterations."""

    def scaled(junction: Junction, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        layer = junction.last and junction.last.taking_factor(shortcut)
        if layer:
            with scaled_parameters(layer, factor):
                branch = junction.run(*inputs)
            return junction.merge(shortcut, branch)
        return junction.merge(shortcut, junction.run(*inputs), factor)

    return scaled


def run_without_graph(junction: Junction, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """The branch runs and is added, and no gradient passes through it."""
    with torch.no_grad():
        branch = junction.run(*inputs)
    return junction.merge(shortcut, branch.detach())  # a view made without a graph may not be written to with one


def drop_rows(masks: RowMasks, factor: float) -> Action:
    """The rows that drop the branch keep the shortcut; the others add the branch times a factor."""

    def dropped(junction: Junction, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        kept = ~masks.local(junction.unit.index, len(shortcut))
        if not kept.any():
            return junction.hand_on(shortcut)
        if kept.all():
            branch = junction.run(*inputs) * factor
        elif _needs_all_rows(junction, shortcut, inputs):
            branch = junction.run(*inputs)
            branch = branch * _per_row(kept.to(branch.dtype) * factor, branch)
        else:
            rows = _row_indices(kept, shortcut.device)
            part = junction.run(inputs[0][rows]) * factor
            branch = part.new_zeros(len(shortcut), *part.shape[1:]).index_copy(0, rows, part)
        return junction.merge(shortcut, branch)

    return dropped


def learn_rows(masks: RowMasks) -> Action:
    """Everything runs and is added; gradient passes through the rows that dropped the branch only."""

    def learned(junction: Junction, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        learning = masks.local(junction.unit.index, len(shortcut))
        if not learning.any():
            return run_without_graph(junction, shortcut, inputs)
        if learning.all():
            branch = junction.run(*inputs)
        elif _needs_all_rows(junction, shortcut, inputs):
            branch = junction.run(*inputs)
            branch = torch.where(_per_row(learning, branch), branch, branch.detach())
        else:
            rows, other_rows = (_row_indices(mask, shortcut.device) for mask in (learning, ~learning))
            # With a graph first: autocast would hand the casts made without one to the second run.
            part = junction.run(inputs[0][rows])
            with torch.no_grad():
                rest = junction.run(inputs[0][other_rows])
            empty = part.new_zeros(len(shortcut), *part.shape[1:])
            branch = empty.index_copy(0, rows, part).index_copy(0, other_rows, rest)
        return junction.merge(shortcut, branch)

    return learned


def with_gradient_of_inputs(action: Action | None) -> Action:
    """The same, but gradients are taken of the branch's inputs too, and thrown away.

    PyTorch (2.13 and before) writes to a null pointer where a group norm on the CPU, channels last, needs gradients
    of its parameters alone: so it would at the start of the first branch that learns.
    """

    def learned(junction: Junction, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        if torch.is_grad_enabled() and shortcut.device.type == "cpu":
            inputs = tuple(begin_gradient(value) for value in inputs)
        if action is not None:
            return action(junction, shortcut, inputs)
        return junction.merge(shortcut, junction.run(*inputs))

    return learned


def begin_gradient(value: Any) -> Any:
    """The same value, with a gradient from here on if it had none."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.requires_grad or not len(value):
        return value
    # Not a leaf, so that what follows may begin with an operation in place; costs nothing.
    return value.detach().requires_grad_().unsafe_split(len(value))[0]


def _needs_all_rows(junction: Junction, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> bool:
    # A second input, a mask for instance, may or may not be per row: then only the whole is sure to be right.
    return junction.unit.has_batch_statistics or len(inputs) != 1 or len(inputs[0]) != len(shortcut)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device, non_blocking=True).view(-1, *[1] * (like.dim() - 1))


def _row_indices(mask: Tensor, device: torch.device) -> Tensor:
    return mask.nonzero()[:, 0].to(device, non_blocking=True)


def _dtype_key(tensor: Tensor) -> tuple:
    device_type = tensor.device.type
    autocast = (
        device_type != "meta" and torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type)
    )
    return tensor.dtype, autocast


def _rank_and_ranks() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
