"""Units over a set of inputs: which are alike, which are made again, how much of a layer comes from the one before.

A layer is float[N, D]: the values of D units for N inputs (grid points, images). Two units are alike by
r = |Pearson correlation over the inputs|, which sees neither scale nor sign. All measures here come from one table,
the closest unit of every layer to every unit (`closest`); whoever takes several measures makes it once and
hands it over in the place of the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError
from .arrays import Floats, Ints, as_layers

FLOAT32_ROUNDING = 1e-7  # features are mostly computed in float32: a unit that varies less than this is constant


@dataclass(frozen=True)
class Closest:
    """`r[l][k, u]`: the maximal r of unit u of layer l with units of layer k; `unit[l][k, u]`: which unit that is.

    Within a layer (k = l) a unit is compared with the others only: r 0 and unit -1 where there is no other.
    """

    r: list[Floats]
    unit: list[Ints]


@dataclass(frozen=True)
class Recreated:
    """`count` units; `share` of those that could be (layers 2 and above); `per_layer` int[L];
    `source`: (layer, unit, from_layer, from_unit) of each."""

    count: int
    share: float
    per_layer: Ints
    source: list[tuple[int, int, int, int]]


def standardised(layer: Floats) -> Floats:
    """Columns with mean 0 and norm 1, so that correlations are dot products; a constant unit becomes 0."""
    centred = layer - layer.mean(0)
    deviation = np.sqrt((centred**2).mean(0))
    varies = deviation > FLOAT32_ROUNDING * np.abs(layer).max(0)
    return np.where(varies, centred, 0.0) / (np.sqrt(len(layer)) * np.where(varies, deviation, 1.0))


def correlations(a: ArrayLike, b: ArrayLike) -> Floats:
    """r of each unit of `a` float[N, Da] with each unit of `b` float[N, Db]: float[Da, Db] in [0, 1].

    A constant unit has r = 0 with everything, itself included.
    """
    first, second = as_layers([a, b])
    return _r(standardised(first), standardised(second))


def closest(layers: Sequence[ArrayLike]) -> Closest:
    """The closest unit of each layer to each unit; layers float[N, D_l], whose widths may differ.

    Cost N (sum of D_l)^2 operations; memory a few times N (sum of D_l) float64, and (largest D_l) (sum of D_l).
    """
    units = [standardised(layer) for layer in as_layers(layers)]
    widths = [unit.shape[1] for unit in units]
    found = Closest(
        [np.zeros((len(widths), width)) for width in widths],
        [np.full((len(widths), width), -1, dtype=np.int64) for width in widths],
    )
    ends = np.cumsum(widths)
    together = np.concatenate(units, axis=1)
    del units
    for layer, end in enumerate(ends):
        with_all_before = _r(together[:, end - widths[layer] : end], together[:, :end])
        for other, table in enumerate(np.split(with_all_before, ends[:layer], axis=1)):
            if other < layer:
                _note(found, layer, other, table)
                _note(found, other, layer, table.T)
            elif len(table) > 1:
                np.fill_diagonal(table, -1.0)
                _note(found, layer, layer, table)
    return found


def max_correlations(layers: Sequence[ArrayLike] | Closest) -> list[Floats]:
    """One float[l, D_l] per layer l: at [k, u] the maximal r of its unit u with any unit of the earlier layer k."""
    return [r[:layer] for layer, r in enumerate(_closest(layers).r)]


def recreated(layers: Sequence[ArrayLike] | Closest, same: float = 0.95, lost: float = 0.80) -> Recreated:
    """Units that were there, were lost, and are made again.

    Unit u of layer l is recreated if some layer k <= l - 2 has a unit with r >= `same` while in every layer between
    the maximal r with u is below `lost`. As `lost` <= `same`, there is at most one such k: the last layer before l
    with a maximal r of at least `lost`. A unit that then stays is close to the layer before and does not count again.
    """
    if not 0 < lost <= same <= 1:
        raise UserError(
            f"`lost` and `same` must satisfy 0 < lost <= same <= 1, got lost={lost}, same={same}; "
            "what is lost is less alike than what is the same."
        )
    table = _closest(layers)
    source = []
    for layer, (r, unit) in enumerate(zip(table.r, table.unit, strict=True)):
        if layer < 2:
            continue
        alike = r[:layer] >= lost
        last = layer - 1 - alike[::-1].argmax(0)  # where nothing is alike this is layer - 1, which does not count
        every = np.arange(r.shape[1])
        for index in np.flatnonzero((last <= layer - 2) & (r[last, every] >= same)):
            source.append((layer, int(index), int(last[index]), int(unit[last[index], index])))
    per_layer = np.bincount([layer for layer, *_ in source], minlength=len(table.r)).astype(np.int64)
    possible = sum(r.shape[1] for r in table.r[2:])
    return Recreated(len(source), len(source) / possible if possible else 0.0, per_layer, source)


def recreated_sweep(
    layers: Sequence[ArrayLike] | Closest,
    same: Sequence[float] = (0.9, 0.925, 0.95, 0.975, 0.99),
    lost: Sequence[float] = (0.6, 0.7, 0.8, 0.9),
) -> Ints:
    """Counts of recreated units, int[len(same), len(lost)]: whether a finding hangs on its thresholds."""
    table = _closest(layers)
    return np.array([[recreated(table, high, low).count for low in lost] for high in same], dtype=np.int64)


def reuse(layers: Sequence[ArrayLike] | Closest) -> Floats:
    """float[L - 1] in [0, 1]: for l = 1..L-1 the mean over the units of layer l of their maximal r with layer l - 1."""
    return np.array([r[-1].mean() for r in max_correlations(layers)[1:]])


def _closest(layers: Sequence[ArrayLike] | Closest) -> Closest:
    return layers if isinstance(layers, Closest) else closest(layers)


def _r(first: Floats, second: Floats) -> Floats:
    table = first.T @ second
    np.abs(table, out=table)
    return np.minimum(table, 1.0, out=table)  # above 1 by rounding alone


def _note(found: Closest, layer: int, other: int, table: Floats) -> None:
    found.r[layer][other] = table.max(1)
    found.unit[layer][other] = table.argmax(1)
