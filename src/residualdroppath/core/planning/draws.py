"""Random draws that are a pure function of (seed, iteration).

SHAKE-256 is the generator: the same numbers on every rank, platform and torch version, no state
to checkpoint, and the first rows of a long draw are the rows of a short one.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Sequence

import torch
from torch import Tensor


def uniform_row(seed: int, iteration: int, stream: str, columns: int) -> list[float]:
    """The first row of `uniform`, without a tensor."""
    return [integer * 2.0**-53 for integer in _integers(seed, iteration, stream, columns)]


def _integers(seed: int, iteration: int, stream: str, columns: int) -> list[int]:
    """Uniform numbers times 2**53."""
    digest = hashlib.shake_256(_key(seed, iteration, stream)).digest(8 * columns)
    return [bits >> 11 for bits in struct.unpack(f"<{columns}Q", digest)]


def uniform(seed: int, iteration: int, stream: str, rows: int, columns: int) -> Tensor:
    """Uniform numbers in [0, 1), float64[rows, columns]; row i does not depend on `rows`."""
    if rows * columns == 0:
        return torch.zeros(rows, columns, dtype=torch.float64)
    digest = bytearray(hashlib.shake_256(_key(seed, iteration, stream)).digest(8 * rows * columns))
    bits = torch.frombuffer(digest, dtype=torch.int64)
    return ((bits >> 11) & (2**53 - 1)).double().mul_(2.0**-53).view(rows, columns)


def _key(seed: int, iteration: int, stream: str) -> bytes:
    return f"residualdroppath/{seed}/{iteration}/{stream}".encode()


@functools.lru_cache(maxsize=64)
def effective_rates(drop_rates: tuple[float, ...]) -> tuple[float, ...]:
    """Drop probabilities given that at least one branch is dropped: r_i / (1 - prod_j(1 - r_j))."""
    # 1 - prod(1 - r) would lose rates far below 1 to rounding.
    some_dropped = -math.expm1(sum(math.log1p(-rate) for rate in drop_rates))
    if some_dropped == 0.0:
        return tuple(0.0 for _ in drop_rates)
    return tuple(min(1.0, rate / some_dropped) for rate in drop_rates)


def draw_row(
    drop_rates: Sequence[float], *, seed: int, iteration: int, nonempty: bool = False, stream: str = "drop"
) -> list[bool]:
    """The first row of `draw_dropped`, without a tensor unless it has to be drawn again."""
    drawn = _integers(seed, iteration, stream, len(drop_rates))
    dropped = [integer < rate * 2.0**53 for integer, rate in zip(drawn, drop_rates, strict=True)]  # both exact
    if nonempty and not any(dropped):
        return draw_dropped(drop_rates, seed=seed, iteration=iteration, nonempty=True, stream=stream)[0].tolist()
    return dropped


def draw_dropped(
    drop_rates: Sequence[float],
    *,
    seed: int,
    iteration: int,
    rows: int = 1,
    nonempty: bool = False,
    stream: str = "drop",
) -> Tensor:
    """Which branches each row drops, bool[rows, branches]; branch i with probability `drop_rates[i]`.

    With `nonempty`, a row that dropped nothing is drawn again given that it drops something. The
    second draw takes the first dropped branch from its exact distribution, so it ends at any rate,
    and a row whose first draw dropped something stays what it is without `nonempty`.
    """
    rates = torch.tensor(drop_rates, dtype=torch.float64)
    dropped = uniform(seed, iteration, stream, rows, len(drop_rates)) < rates
    if not nonempty or not bool((rates > 0).any()):
        return dropped

    empty = ~dropped.any(dim=1)
    if bool(empty.any()):
        again = uniform(seed, iteration, f"{stream}-again", rows, len(drop_rates) + 1)
        # P(the first dropped branch is i) = r_i * prod_{j<i}(1 - r_j); after it all is independent.
        none_before = torch.cumprod(torch.cat([torch.ones(1, dtype=torch.float64), 1 - rates]), dim=0)
        first_dropped = torch.cumsum(rates * none_before[:-1], dim=0)
        target = again[:, :1] * first_dropped[-1]
        first = (first_dropped <= target).sum(dim=1, keepdim=True)
        branch = torch.arange(len(drop_rates))
        redrawn = (branch == first) | ((branch > first) & (again[:, 1:] < rates))
        dropped = torch.where(empty[:, None], redrawn, dropped)
    return dropped
