"""Centred kernel alignment between layers: debiased, over minibatches, in float64, never clipped.

CKA(X, Y) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with the linear kernels K = X X', L = Y Y' (Kornblith et al.
2019). HSIC is the unbiased estimate of Song et al. (2012); over minibatches it is averaged before the ratio
(Nguyen, Raghu & Kornblith 2021), so that the batch size does not shift the result. As in the code of these authors,
batches weigh by n (n - 3): all the same where they are equally large, and a small last batch adds little noise.

An unbiased estimate of what is at least 0 may be negative, and is kept: the range is [-1, 1], and independent layers
are 0 on average. It stays within 1 because unbiased HSIC is an inner product (of U-centred kernels, Szekely & Rizzo
2014), and so are its sums over batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import UserError
from .arrays import Floats, as_matrix

MIN_ROWS = 4  # of the unbiased estimate
COLUMNS = 1 << 16  # taken into float64 at a time


class MinibatchCKA:
    """CKA between all pairs of layers, from minibatches; memory L n^2 for batches of n rows, however many they are."""

    def __init__(self) -> None:
        self._sum: Floats | None = None

    @torch.no_grad()
    def update(self, layers: Sequence[Tensor | ArrayLike]) -> None:
        """Features of one batch, float[n, ...] per layer, the same n >= 4 rows; axes after the first are flattened."""
        grams = [_gram(f"layers[{index}]", layer) for index, layer in enumerate(layers)]
        rows = sorted({len(gram) for gram in grams})
        if len(rows) != 1 or rows[0] < MIN_ROWS:
            raise UserError(
                f"`layers` must hold the same inputs in all layers, at least {MIN_ROWS}, got rows {rows}; "
                "use larger batches, or leave out a last batch that is smaller."
            )
        found = _hsic_of_all(np.stack(grams))
        if self._sum is not None and self._sum.shape != found.shape:
            raise UserError(
                f"`layers` must be the same layers at every update, {len(self._sum)} of them, got {len(found)}; "
                "begin a new `MinibatchCKA` for other layers."
            )
        self._sum = found if self._sum is None else self._sum + found

    def result(self) -> Floats:
        """float64[L, L], symmetric; NaN where the HSIC of a layer with itself is not positive (a constant layer)."""
        if self._sum is None:
            raise UserError("`MinibatchCKA.result` needs at least one batch, got none; call `update` first.")
        own = np.diagonal(self._sum)
        scale = np.sqrt(np.where(own > 0, own, np.nan))
        return self._sum / np.outer(scale, scale)


def hsic_unbiased(first: ArrayLike, second: ArrayLike) -> float:
    """Unbiased HSIC (Song et al. 2012) of two kernel matrices float[n, n], n >= 4; may be negative.

    (tr(K L) + sum(K) sum(L) / ((n - 1)(n - 2)) - 2 / (n - 2) sum(K L)) / (n (n - 3)), diagonals of K and L set to 0.
    """
    kernels = [as_matrix(name, kernel) for name, kernel in (("first", first), ("second", second))]
    shapes = [kernel.shape for kernel in kernels]
    if len({*shapes[0], *shapes[1]}) != 1 or shapes[0][0] < MIN_ROWS:
        raise UserError(
            f"`first` and `second` must be kernel matrices of the same size [n, n], n >= {MIN_ROWS}, got {shapes}; "
            "give features to `cka` instead."
        )
    n = shapes[0][0]
    return float(_hsic_of_all(np.stack(kernels))[0, 1] / (n * (n - 3)))


def cka(x: Tensor | ArrayLike, y: Tensor | ArrayLike) -> float:
    """Debiased CKA of float[n, Dx] and float[n, Dy] in one piece; takes n^2 memory, so n in the thousands."""
    estimate = MinibatchCKA()
    estimate.update([x, y])
    return float(estimate.result()[0, 1])


def _gram(name: str, features: Tensor | ArrayLike) -> Floats:
    """X X' of features centred over the rows: HSIC stays, and large means do not eat its digits."""
    given = features if isinstance(features, Tensor) else torch.from_numpy(np.array(features, dtype=np.float64))
    if given.dim() < 2:
        raise UserError(f"`{name}` must have the shape [inputs, units], got {list(given.shape)}; one row per input.")
    given = given.flatten(1)
    gram = torch.zeros(len(given), len(given), dtype=torch.float64, device=given.device)
    for part in given.split(COLUMNS, dim=1):
        centred = part.double()
        centred = centred - centred.mean(0)
        gram += centred @ centred.T
    return as_matrix(name, gram.cpu().numpy())


def _hsic_of_all(kernels: Floats) -> Floats:
    """n (n - 3) HSIC of all pairs of symmetric kernels float[L, n, n], whose diagonals it overwrites: float[L, L]."""
    n = kernels.shape[1]
    kernels[:, range(n), range(n)] = 0
    flat, sums = kernels.reshape(len(kernels), -1), kernels.sum(2)
    totals = sums.sum(1)
    traces = flat @ flat.T
    return traces + np.outer(totals, totals) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (sums @ sums.T)
