"""Mutual information: of bins, as a measure of clustering; of few dimensions, by nearest neighbours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import KDTree
from scipy.special import digamma
from scipy.stats import entropy

from ..errors import UserError
from .arrays import Floats, as_labels, as_matrix

JITTER = 1e-10  # of a standard deviation: breaks ties between equal points


class KSG(NamedTuple):
    """An estimate in nats beside its null distribution; `p` = (1 + shuffles at or above it) / (1 + shuffles)."""

    value: float
    null_mean: float
    null_sd: float
    p: float


def binned_information(layer: ArrayLike, labels: ArrayLike, bins: int = 30) -> float:
    """Mutual information in bits between labels and the layer float[N, D] cut into bins; in [0, H(labels)].

    A measure of clustering, not of what the layer knows (Goldfeld et al., arXiv 1810.05728): a deterministic network
    keeps all information about its input. Equal-width bins from the layer's smallest to its largest value; the bins of
    all units together are one symbol (Shwartz-Ziv & Tishby 2017). It is H(labels) as soon as every input has a symbol
    of its own, so it falls where inputs of different labels come together.
    """
    matrix = as_matrix("layer", layer)
    vector = as_labels("labels", labels, len(matrix))
    if bins < 2:
        raise UserError(f"`bins` must be at least 2, got {bins}; 30 is usual.")
    low, high = matrix.min(), matrix.max()
    width = (high - low) / bins or 1.0
    cut = np.minimum((matrix - low) // width, bins - 1).astype(np.int64)
    symbols = np.unique(cut, axis=0, return_inverse=True)[1].reshape(-1)
    answers = np.unique(vector, return_inverse=True)[1]
    pairs = symbols * (answers.max() + 1) + answers
    return _entropy_bits(symbols) + _entropy_bits(answers) - _entropy_bits(pairs)


def ksg_information(x: ArrayLike, y: ArrayLike, k: int = 3) -> float:
    """Mutual information in nats of continuous float[N, Dx] and float[N, Dy] (Kraskov et al. 2004, estimator 1).

    psi(k) + psi(N) - mean(psi(n_x + 1) + psi(n_y + 1)), where n_x counts the points nearer in x than the k-th
    neighbour in both (maximum norm). Columns are standardised. For few dimensions only, 1 to 3 on each side: beyond
    them, and for strong dependence (above about ln N), it is far too low. May be slightly negative.
    """
    first, second = _points(x, y, k)
    return _ksg(first, second, k)


def ksg_with_null(x: ArrayLike, y: ArrayLike, k: int = 3, shuffles: int = 20, seed: int = 0) -> KSG:
    """`ksg_information` beside the same estimate with the rows of `y` shuffled, `shuffles` times."""
    if shuffles < 2:
        raise UserError(f"`shuffles` must be at least 2, got {shuffles}; 20 tell p < 0.05, 100 are better.")
    first, second = _points(x, y, k)
    value = _ksg(first, second, k)
    generator = np.random.default_rng(seed)
    null = np.array([_ksg(first, generator.permutation(second), k) for _ in range(shuffles)])
    above = int((null >= value).sum())
    return KSG(value, float(null.mean()), float(null.std(ddof=1)), (1 + above) / (1 + shuffles))


def _ksg(x: Floats, y: Floats, k: int) -> float:
    both = np.concatenate([x, y], axis=1)
    distances = KDTree(both).query(both, k=k + 1, p=np.inf)[0][:, k]  # at 0 is the point itself
    radius = np.nextafter(distances, 0)  # strictly nearer
    counts = [KDTree(side).query_ball_point(side, radius, p=np.inf, return_length=True) for side in (x, y)]
    # A point counts itself, so its count is n + 1.
    return float(digamma(k) + digamma(len(x)) - sum(digamma(count).mean() for count in counts))


def _points(x: ArrayLike, y: ArrayLike, k: int) -> tuple[Floats, Floats]:
    """Standardised columns, with a jitter so small that it matters for equal points only."""
    first, second = as_matrix("x", x), as_matrix("y", y)
    if len(first) != len(second) or not 1 <= k < len(first):
        raise UserError(
            f"`x` and `y` must have the same rows, more than `k`, and `k` be at least 1, got {len(first)} and "
            f"{len(second)} rows, k={k}; take both from the same inputs."
        )
    generator = np.random.default_rng(0)
    scaled = []
    for matrix in (first, second):
        deviation = matrix.std(0)
        standard = (matrix - matrix.mean(0)) / np.where(deviation > 0, deviation, 1.0)
        scaled.append(standard + JITTER * generator.standard_normal(matrix.shape))
    return scaled[0], scaled[1]


def _entropy_bits(symbols: np.ndarray) -> float:
    return float(entropy(np.unique(symbols, return_counts=True)[1], base=2))
