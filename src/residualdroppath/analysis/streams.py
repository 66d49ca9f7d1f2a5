"""How much a residual branch adds to the stream, and in which direction: streaming, over samples."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError

ELEMENTS = 1 << 22  # taken into float64 at a time
MEASURES = ("norm_ratio", "cosine", "block_influence")


class StreamStatistics:
    """Means over samples, per residual branch; each sample's features are flattened into one vector.

    `norm_ratio`: ||branch|| / ||shortcut||, at least 0, over samples whose shortcut is not 0.
    `cosine`: cos(branch, shortcut) in [-1, 1]; negative where the branch takes away from the stream.
    `block_influence`: 1 - cos(shortcut, merged) in [0, 2] (ShortGPT, arXiv 2403.03853). A weak proxy of what the
    branch is worth: compare with the accuracy lost without it.
    The cosine with a vector of zeros is 0.
    """

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}
        self._counts: dict[int, Tensor] = {}

    @torch.no_grad()
    def update(self, branch_index: int, shortcut: Tensor, branch: Tensor, merged: Tensor) -> None:
        """The two sides of one residual add and its result, [n, ...] each.

        Where the add overwrites the shortcut, give a copy of the shortcut that was made before.
        """
        if branch_index < 0 or shortcut.dim() < 2 or not _fit(shortcut, branch, merged):
            raise UserError(
                f"`branch_index` must be at least 0, and shortcut, branch and merged be [inputs, ...], got "
                f"{branch_index}, {list(shortcut.shape)}, {list(branch.shape)}, {list(merged.shape)}; "
                "give what one residual add takes and gives."
            )
        sides = [side.flatten(1) for side in torch.broadcast_tensors(shortcut, branch, merged)]
        rows = max(1, ELEMENTS // sides[0].shape[1])
        for parts in zip(*(side.split(rows) for side in sides), strict=True):
            sums, counts = _sums(*(part.double() for part in parts))
            if branch_index in self._sums:
                sums, counts = sums + self._sums[branch_index], counts + self._counts[branch_index]
            self._sums[branch_index], self._counts[branch_index] = sums, counts

    def result(self) -> list[dict[str, float]]:
        """One row per branch, by index; NaN for a branch that was not seen."""
        empty = torch.zeros(len(MEASURES), dtype=torch.float64)
        rows = []
        for index in range(max(self._sums, default=-1) + 1):
            means = self._sums.get(index, empty) / self._counts.get(index, empty)
            rows.append(dict(zip(MEASURES, means.tolist(), strict=True)))
        return rows


def _fit(shortcut: Tensor, branch: Tensor, merged: Tensor) -> bool:
    try:
        return torch.broadcast_shapes(shortcut.shape, branch.shape) == merged.shape
    except RuntimeError:
        return False


def _sums(shortcut: Tensor, branch: Tensor, merged: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the rows of float64[n, D] in the order of `MEASURES`, and how many rows each is over."""
    lengths = [side.norm(dim=1) for side in (shortcut, branch, merged)]
    there = lengths[0] > 0
    ratios = torch.where(there, lengths[1] / torch.where(there, lengths[0], 1.0), 0.0)
    cosines = _cosine(branch, shortcut, lengths[1] * lengths[0])
    influences = 1 - _cosine(shortcut, merged, lengths[0] * lengths[2])
    rows = torch.full_like(lengths[0], 1.0)
    return torch.stack([ratios, cosines, influences]).sum(1), torch.stack([there.double(), rows, rows]).sum(1)


def _cosine(first: Tensor, second: Tensor, scale: Tensor) -> Tensor:
    return (first * second).sum(1) / torch.where(scale > 0, scale, 1.0)
