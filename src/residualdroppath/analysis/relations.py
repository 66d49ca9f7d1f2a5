"""Relations between the units of one layer, and of layers near and far: as a matrix, as groups, as a number.

r = |Pearson correlation over the inputs|, as in `units`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform

from ..errors import UserError
from .arrays import Floats, Ints, as_layers
from .units import FLOAT32_ROUNDING, Closest, closest, correlations, standardised


@dataclass(frozen=True)
class Development:
    """`similarity` float[D, D] in [0, 1]; `groups` of two units or more that develop alike, largest first;
    `order` int[D]: units in the order of the cluster tree, for drawing; `effective`: how many developments there
    are, in [1, D] (0 if nothing changes)."""

    similarity: Floats
    groups: list[list[int]]
    order: Ints
    effective: float


def relation_matrix(layers: Sequence[ArrayLike] | Closest) -> Floats:
    """float[L, L] in [0, 1]: at [l, k] the mean over the units of layer l of their maximal r with units of layer k.

    At [l, l] a unit is compared with the other units of its layer. Not symmetric: a layer may hold all of another and
    more. A wider layer k gives larger values by chance alone: compare layers of one width, or an untrained network.
    """
    table = layers if isinstance(layers, Closest) else closest(layers)
    return np.array([r.mean(1) for r in table.r])


def duplicates(layer: ArrayLike, threshold: float = 0.95) -> tuple[float, list[list[int]]]:
    """The share of units of float[N, D] with r >= `threshold` to another, in [0, 1], and the groups of these units.

    Groups are those of single linkage on 1 - r: whoever is alike is in one group, also by a chain of others.
    """
    _check_threshold(threshold)
    r = correlations(layer, layer)
    groups = _groups(r, threshold, "single")[0]
    return sum(map(len, groups)) / len(r), groups


def effective_units(layer: ArrayLike) -> float:
    """Participation ratio of the eigenvalues of the correlation matrix of float[N, D], in [1, D]; 0 if all is constant.

    (sum lambda)^2 / sum lambda^2: D for uncorrelated units, 1 if all units are one up to scale and sign. Constant units
    are left out. With N inputs it is below N however wide the layer, so N should be well above D.
    """
    units = standardised(as_layers([layer])[0])
    total = float((units**2).sum())  # the trace: how many units vary
    gram = units.T @ units if units.shape[1] <= len(units) else units @ units.T  # the same eigenvalues
    return total**2 / float((gram**2).sum()) if total else 0.0


def alike_in_development(history: ArrayLike, threshold: float = 0.8) -> Development:
    """Which units change alike over training; `history` is float[T, N, D], T checkpoints over the same N inputs.

    The development of a unit is its change between consecutive checkpoints, centred over the inputs and stacked over
    time: (T - 1) N numbers. Similarity is |cosine| of two developments: 1 for units that change in proportion, or in
    opposite directions, at all times and for all inputs, wherever they started. Large changes count more than small
    ones; a unit that does not change is alike to none. The D units may be those of several layers side by side.
    Groups: average linkage on 1 - similarity, cut at 1 - `threshold`. `effective`: participation ratio of the
    eigenvalues of the (signed) cosines.
    """
    _check_threshold(threshold)
    checkpoints = np.asarray(history, dtype=np.float64)
    if checkpoints.ndim != 3 or len(checkpoints) < 2 or not np.isfinite(checkpoints).all():
        raise UserError(
            "`history` must be finite and have the shape [checkpoints, inputs, units], at least 2 checkpoints, got "
            f"{list(checkpoints.shape)}; take the same units over the same inputs at every checkpoint."
        )
    changes = np.diff(checkpoints, axis=0)
    changes = (changes - changes.mean(1, keepdims=True)).reshape(-1, changes.shape[2])
    length = np.linalg.norm(changes, axis=0)
    moves = length > FLOAT32_ROUNDING * np.linalg.norm(checkpoints, axis=(0, 1))
    changes = np.where(moves, changes, 0.0) / np.where(moves, length, 1.0)
    cosines = changes.T @ changes
    similarity = np.minimum(np.abs(cosines), 1.0)
    groups, order = _groups(similarity, threshold, "average")
    moving = np.trace(cosines)
    return Development(similarity, groups, order, float(moving**2 / (cosines**2).sum()) if moving else 0.0)


def _groups(similarity: Floats, threshold: float, method: str) -> tuple[list[list[int]], Ints]:
    """Groups of two or more, largest first, and the units in the order of the tree."""
    count = len(similarity)
    if count < 2:
        return [], np.arange(count)
    tree = linkage(squareform(1 - similarity, checks=False), method=method)  # the diagonal is not looked at
    members = fcluster(tree, 1 - threshold, criterion="distance")
    groups = [np.flatnonzero(members == group).tolist() for group in np.unique(members)]
    return sorted((group for group in groups if len(group) > 1), key=len, reverse=True), leaves_list(tree)


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise UserError(f"`threshold` must be in (0, 1], got {threshold}; 0.95 is a usual choice.")
