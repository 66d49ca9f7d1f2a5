"""Which rows of a draw are those of one rank."""

from __future__ import annotations

import pytest
import torch

from residualdroppath.core.planning.plan import PlanOptions, make_plan
from residualdroppath.core.running import row_masks
from residualdroppath.core.running.row_masks import RowMasks

OPTIONS = PlanOptions(names=("a", "b"), drop_rates=(0.3, 0.6), granularity="sample")


def test_rows_of_a_rank_are_its_part_of_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = RowMasks()
    for iteration in (0, 2):
        plan = make_plan(OPTIONS, iteration)
        masks.set_plan(plan)
        for start in (0, 3, 5):
            masks.begin_forward()
            monkeypatch.setattr(row_masks, "place_among_ranks", lambda rows, start=start: (start, 9))
            for branch in range(2):
                assert torch.equal(masks.local(branch, 4), plan.mask(9)[branch, start : start + 4])


def test_a_branch_is_dropped_by_some_row_of_any_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(OPTIONS, 0)
    masks = RowMasks()
    masks.set_plan(plan)
    last = int(plan.mask(9)[0].nonzero()[0])  # the first row that drops the branch is another rank's
    assert last > 0
    monkeypatch.setattr(row_masks, "place_among_ranks", lambda rows: (0, 9))
    assert not masks.local(0, last).any() and masks.any_row(0)
