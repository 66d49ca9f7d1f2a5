"""What the measures take: float64 matrices of finite numbers, one row per input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def as_matrix(name: str, values: ArrayLike) -> Floats:
    """`values` as float64[N, D]; a vector becomes one column. Raises `UserError` for any other shape, NaN and inf."""
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise UserError(
            f"`{name}` must have the shape [inputs, units], neither of them 0, got {list(matrix.shape)}; "
            "pool or flatten all axes after the first into one."
        )
    if not np.isfinite(matrix).all():
        raise UserError(
            f"`{name}` must be finite, got NaN or infinite values; look for a run that diverged or a float16 overflow."
        )
    return matrix


def as_layers(layers: Sequence[ArrayLike]) -> list[Floats]:
    """Each layer as float64[N, D_l], all with the same N, which is at least 2."""
    matrices = [as_matrix(f"layers[{index}]", layer) for index, layer in enumerate(layers)]
    rows = sorted({len(matrix) for matrix in matrices})
    if len(rows) != 1 or rows[0] < 2:
        raise UserError(
            f"`layers` must be one or more arrays over the same inputs, at least 2 of them, got rows {rows}; "
            "run all layers on one set of inputs."
        )
    return matrices


def as_labels(name: str, labels: ArrayLike, rows: int) -> NDArray[np.generic]:
    """`labels` as a vector with an entry per row; raises `UserError` where it is not."""
    vector = np.asarray(labels)
    if vector.shape != (rows,):
        raise UserError(
            f"`{name}` must have one entry per row of features, that is shape [{rows}], got {list(vector.shape)}; "
            "give class indices, not one-hot rows."
        )
    return vector
