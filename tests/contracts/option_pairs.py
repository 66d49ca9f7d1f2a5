"""Options in rows such that every pair of values occurs in some row, in place of all products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Options = dict[str, Any]

MODES: dict[str, Options] = {
    "parameters": {"freeze": "parameters", "granularity": "batch"},
    "stop_gradient": {"freeze": "stop_gradient", "granularity": "batch"},
    "sample": {"freeze": "stop_gradient", "granularity": "sample"},
}
OPTIONS = ("schedule", "frozen_norm", "train_trunk", "scale_by_keep", "rate_over_depth", "rate_over_time")
# A mode, these options, whether gradients are zeroed before `step()` or after it, and whether they become None.
TABLE: tuple[tuple[Any, ...], ...] = (
    ("parameters", (1, 1), "update", False, True, "linear", "late", True, True),
    ("parameters", (2, 1), "batch", True, False, "linear", "constant", True, False),
    ("parameters", (1, 2), "running", False, True, "uniform", "constant", False, False),
    ("parameters", "random", "update", True, False, "uniform", "late", False, True),
    ("parameters", (1, 0), "batch", False, True, "linear", "constant", True, True),
    ("stop_gradient", (1, 1), "batch", True, True, "uniform", "constant", False, False),
    ("stop_gradient", (2, 1), "running", False, False, "linear", "late", False, True),
    ("stop_gradient", (1, 2), "update", True, True, "linear", "constant", True, True),
    ("stop_gradient", "random", "batch", False, False, "uniform", "constant", True, False),
    ("stop_gradient", (1, 0), "running", True, True, "uniform", "late", False, False),
    ("sample", (1, 1), "running", False, False, "uniform", "constant", True, True),
    ("sample", (2, 1), "update", True, True, "uniform", "constant", True, False),
    ("sample", (1, 2), "batch", False, False, "linear", "late", False, False),
    ("sample", "random", "running", True, True, "linear", "constant", False, True),
    ("sample", (1, 0), "update", False, False, "uniform", "constant", True, True),
)


@dataclass(frozen=True)
class Row:
    """Options of `ResidualDropPath`, and the order of a training loop."""

    options: Options
    zero_first: bool = True
    set_to_none: bool = True


ROWS = tuple(
    Row({**MODES[mode], **dict(zip(OPTIONS, values, strict=True)), "total_iterations": 2}, zero_first, set_to_none)
    for mode, *values, zero_first, set_to_none in TABLE
)


def row_of_each_mode(number: int) -> list[Row]:
    """For the network of this number in its table; five networks in turn use all rows."""
    return [ROWS[5 * mode + (number + 2 * mode) % 5] for mode in range(len(MODES))]


def one_row(number: int) -> list[Row]:
    """For the network of this number in its table; fifteen networks in turn use all rows."""
    return [ROWS[number % len(ROWS)]]
