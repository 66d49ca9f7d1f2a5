"""Which rows of a draw are those of one rank."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residualdroppath import ResidualDropPath
from residualdroppath.core.planning.plan import PlanOptions, make_plan
from residualdroppath.core.running import row_masks
from residualdroppath.core.running.row_masks import RowMasks

from .tiny_blocks import LayerScale

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


class Frames(nn.Module):
    """Frames of a video folded into the batch, for its first block alone."""

    def __init__(self) -> None:
        super().__init__()
        self.of_frames, self.of_video = LayerScale(), LayerScale()

    def forward(self, x: Tensor) -> Tensor:
        return self.of_video(self.of_frames(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1))


SAMPLE: dict[str, Any] = {"granularity": "sample", "freeze": "stop_gradient", "rate_over_depth": "uniform"}


def test_blocks_that_see_other_rows_are_warned_of_once() -> None:
    model = Frames()
    rdp = ResidualDropPath(model, 0.5, **SAMPLE)
    with pytest.warns(UserWarning, match=r"it is 12 for some blocks and 4 from branch 2 on .* \(`exclude`\)"):
        model(torch.randn(4, 3, 6))
    for _ in range(3):
        rdp.step()
        model(torch.randn(4, 3, 6))
    rdp.remove()
    for options in ({"exclude": "of_frames", **SAMPLE}, {}):
        rdp = ResidualDropPath(model, 0.5, **options)
        model(torch.randn(4, 3, 6))
        model(torch.randn(2, 3, 6))  # another batch size is no sign of anything
        rdp.remove()


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_over_the_first_dimension_is_warned_of(batch_first: bool) -> None:
    layers = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first) for _ in range(3)))
    expected = nullcontext() if batch_first else pytest.warns(UserWarning, match="`batch_first=False`: if the block")
    with expected:
        ResidualDropPath(layers, 0.5, **SAMPLE).remove()
    ResidualDropPath(layers, 0.5).remove()
