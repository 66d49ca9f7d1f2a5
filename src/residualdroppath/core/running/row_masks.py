"""Which rows of a batch drop which branches (`granularity="sample"`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..planning.plan import Plan


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


def _rank_and_ranks() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
