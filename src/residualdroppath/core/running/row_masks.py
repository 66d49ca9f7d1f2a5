"""Which rows of a batch drop which branches (`granularity="sample"`)."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ..planning.plan import Plan

Place = tuple[int, int]  # the first of this rank's rows among those of all ranks, and the number of all


class RowMasks:
    """The row-by-row draw of the plan in force, for this rank's rows.

    All ranks follow one draw, so each must know how many rows the others have: they exchange their numbers
    once in every training forward, which therefore all ranks must run alike.
    """

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self._masks: dict[int, Tensor] = {}
        self._places: dict[int, Place] = {}
        self._last_total = 0
        self._warned = False

    def set_plan(self, plan: Plan) -> None:
        self.plan = plan
        self._masks = {}

    def begin_forward(self) -> None:
        """The rows of other ranks may differ from forward to forward."""
        self._places = {}

    def local(self, branch: int, rows: int) -> Tensor:
        """Which of this rank's `rows` rows drop the branch, bool[rows] on the CPU."""
        if rows not in self._places:
            self._places[rows] = place_among_ranks(rows)
            if len(self._places) == 2 and not self._warned:
                self._warned = True
                self._warn(branch, *self._places)
        start, self._last_total = self._places[rows]
        return self._of(self._last_total)[branch, start : start + rows]

    def any_row(self, branch: int) -> bool:
        """Whether some row, on any rank, drops the branch; for the rows seen last."""
        return bool(self._of(self._last_total)[branch].any())

    def snapshot(self) -> tuple[Plan | None, dict[int, Tensor], dict[int, Place]]:
        """What a recomputation of this forward has to see again."""
        return self.plan, self._masks, self._places

    def restore(self, snapshot: tuple[Plan | None, dict[int, Tensor], dict[int, Place]]) -> None:
        self.plan, self._masks, self._places = snapshot

    def _warn(self, branch: int, before: int, rows: int) -> None:
        warnings.warn(
            f"`granularity='sample'` drops along the first dimension of a block's input. In one forward it is {before} "
            f"for some blocks and {rows} from branch {branch + 1} on (in the order of `print(rdp)`), so for some it is "
            "not the batch: windows, frames or tokens are dropped one by one there. Leave such branches out "
            "(`exclude`), or use `granularity='batch'`.",
            UserWarning,
            stacklevel=2,
        )

    def _of(self, global_rows: int) -> Tensor:
        assert self.plan is not None
        if global_rows not in self._masks:
            self._masks[global_rows] = self.plan.mask(global_rows)
        return self._masks[global_rows]


def place_among_ranks(rows: int) -> Place:
    """The place of this rank's rows in a batch that all ranks share, in order of their ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, rows
    counts = [0] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(counts, rows)
    return sum(counts[: torch.distributed.get_rank()]), sum(counts)
