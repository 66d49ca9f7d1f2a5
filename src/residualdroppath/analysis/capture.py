"""What passes through every residual add of a network, batch by batch: pooled features are kept, maps are not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..core.residual_drop_path import ResidualDropPath
from ..core.running.add_point import Action, AddPoint
from ..errors import UserError

INPUT_SIDE = 8  # pixels a side of the input that layers are to give back
GRID = 4  # side of the coarse maps given to `on_batch`, tokens in GRID * GRID groups

Floats32 = NDArray[np.float32]
# (index of the branch, shortcut, branch, merged), each [n, ...]: the form of `StreamStatistics.update`.
AtAdd = Callable[[int, Tensor, Tensor, Tensor], None]
# Coarse features float[n, D] of all streams and of all branches of one batch.
OnBatch = Callable[[list[Tensor], list[Tensor]], None]


@dataclass(frozen=True)
class Features:
    """Pooled features of N inputs, in the order of execution.

    `streams[0]` is the stream before the first add, `streams[i + 1]` the stream right after add i (before any
    activation that follows it); `branches[i]` is what branch i adds. `indices[i]` is its place in `rdp.branches`.
    """

    names: list[str]
    branch_names: list[str]
    indices: list[int]
    streams: list[Floats32]
    branches: list[Floats32]
    outputs: Floats32
    labels: NDArray[np.int64]


@torch.no_grad()
def capture(
    rdp: ResidualDropPath,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    at_add: AtAdd | None = None,
    on_batch: OnBatch | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Features:
    """Run the network in evaluation mode over batches (images [n, ...], labels int64[n]) and look at each add.

    Memory: the pooled features, float32[N, D] per stream and branch, and the maps of one batch. `at_add` and
    `on_batch` see the whole maps, and coarse ones (`coarse`), while they are there.

    A branch that runs several times in one forward is seen the first time; one that does not run is left out.

    Raises:
        UserError: no branch runs, or an add does not have the images along its first dimension.
    """
    count = len(rdp.branches)
    order: list[int] = []
    kept: dict[tuple[str, int], _Rows] = {}
    outputs, labels = [], []
    seen: dict[int, tuple[Tensor | None, Tensor, Tensor, Tensor | None]] = {}
    rows = 0

    def look(index: int) -> Action:
        def act(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
            branch = add_point.run(*inputs)
            if index in seen:
                return add_point.merge(shortcut, branch)
            _require_rows(rdp.branches[index].name, shortcut, rows)
            merged = shortcut + branch  # apart: the add as written may overwrite either side
            if at_add is not None:
                at_add(index, shortcut, branch.expand_as(merged), merged)
            first = not seen
            if first:
                keep("stream", -1, shortcut)
            keep("stream", index, merged)
            keep("branch", index, branch)
            wide = on_batch is not None
            seen[index] = (
                coarse(shortcut) if wide and first else None, pooled(merged), coarse(branch) if wide else branch[:0],
                coarse(merged) if wide else None,
            )  # fmt: skip
            return add_point.merge(shortcut, branch)

        return act

    def keep(kind: str, index: int, maps: Tensor) -> None:
        kept.setdefault((kind, index), _Rows()).append(pooled(maps).float().cpu().numpy())

    was_training = rdp.model.training
    rdp.model.eval()
    try:
        with rdp.acting([look(index) for index in range(count)], in_evaluation=True), autocast():
            for images, answers in batches:
                rows = len(images)
                seen.clear()
                outputs.append(logits_of(rdp.model(images)).float().cpu().numpy())
                labels.append(answers.cpu().numpy())
                if not order:
                    order.extend(seen)
                if list(seen) != order or not order:
                    raise UserError(
                        "`model` must run the same residual branches for every batch, at least one, got "
                        f"{len(seen)} after {len(order)}; analyse a network whose way does not hang on its input."
                    )
                if on_batch is not None:
                    streams = [seen[order[0]][0], *(seen[index][3] for index in order)]
                    on_batch([each for each in streams if each is not None], [seen[index][2] for index in order])
    finally:
        rdp.model.train(was_training)
    if not outputs:
        raise UserError("`batches` must hold at least one batch, got none; take more samples.")
    names = [rdp.branches[index].name for index in order]
    return Features(
        names=[f"input of {names[0]}", *names],
        branch_names=names,
        indices=order,
        streams=[kept["stream", index].joined() for index in (-1, *order)],
        branches=[kept["branch", index].joined() for index in order],
        outputs=np.concatenate(outputs),
        labels=np.concatenate(labels),
    )


class _Rows:
    """Rows collected batch by batch in large pieces: small arrays kept between the large maps of a forward would leave
    the heap in holes that no map fits into, and memory would grow with every batch."""

    PIECE = 1024

    def __init__(self) -> None:
        self._pieces: list[Floats32] = []
        self._free = 0

    def append(self, rows: Floats32) -> None:
        while len(rows):
            if not self._free:
                self._pieces.append(np.empty((self.PIECE, rows.shape[1]), dtype=np.float32))
                self._free = self.PIECE
            taken = rows[: self._free]
            start = self.PIECE - self._free
            self._pieces[-1][start : start + len(taken)] = taken
            self._free -= len(taken)
            rows = rows[len(taken) :]

    def joined(self) -> Floats32:
        rows = np.concatenate(self._pieces)
        return rows[: len(rows) - self._free].copy()


def pooled(maps: Tensor) -> Tensor:
    """One number per unit: [n, D] as it is; the mean over space of [n, C, H, W] or [n, H, W, C]; over tokens of
    [n, T, D]; over all but the second dimension of [n, C, T, H, W]."""
    if maps.dim() == 2:
        return maps
    if maps.dim() == 3:
        return maps.mean(1)
    maps = _channels_first(maps)
    return maps.flatten(2).mean(2)


def coarse(maps: Tensor) -> Tensor:
    """[n, D] features with a little of where they are: maps averaged to 4 x 4 at most, tokens in 16 groups."""
    if maps.dim() == 2:
        return maps
    if maps.dim() == 3:
        groups = min(GRID * GRID, maps.shape[1])
        return F.adaptive_avg_pool1d(maps.float().transpose(1, 2), groups).flatten(1)
    maps = _channels_first(maps)
    if maps.dim() > 4:
        return pooled(maps).float()
    return F.adaptive_avg_pool2d(maps.float(), (min(GRID, maps.shape[2]), min(GRID, maps.shape[3]))).flatten(1)


def logits_of(output: object) -> Tensor:
    """float[n, classes] of what a classifier returns: a tensor, or the first of a tuple or of a model output."""
    if not isinstance(output, Tensor) and isinstance(getattr(output, "logits", None), Tensor):
        output = output.logits  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.dim() != 2:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"`model` must return logits of the shape [images, classes], got {shape}; take a classifier.")
    return output


def _channels_first(maps: Tensor) -> Tensor:
    """Channels of square maps by their shape: NHWC if the second and third sizes are equal and the last is not."""
    if maps.dim() == 4 and maps.shape[1] == maps.shape[2] != maps.shape[3]:
        return maps.movedim(-1, 1)
    return maps


def _require_rows(name: str, shortcut: Tensor, rows: int) -> None:
    if shortcut.dim() < 2 or shortcut.dim() > 5 or len(shortcut) != rows:
        raise UserError(
            f"Branch {name} must add tensors with the {rows} images of a batch along the first of 2 to 5 dimensions, "
            f"got {list(shortcut.shape)}; networks that cut images apart before the add cannot be analysed."
        )


def small_input(images: Tensor) -> np.ndarray:
    """float32[n, D]: the input averaged to at most 8 x 8 pixels, what reconstruction is measured on."""
    side = min(INPUT_SIDE, images.shape[-1])
    return F.adaptive_avg_pool2d(images.float(), side).flatten(1).cpu().numpy()
