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
OPTIONS = (
    "schedule",
    "frozen_norm",
    "train_trunk",
    "scale_by_keep",
    "rate_over_depth",
    "rate_over_time",
    "trains",
    "draw",
    "empty_draw",
)
PARAMETERS, STOP, SAMPLE = MODES
# A mode, these options, whether gradients are zeroed before `step()` or after it, and whether they become None.
# fmt: off
TABLE: tuple[tuple[Any, ...], ...] = (
    (PARAMETERS, (1, 1), "update", False, True, "uniform", "late", "union", "independent", "plain", True, True),
    (PARAMETERS, (1, 1), "running", True, False, "uniform", "late", "all", "balanced", "redraw", True, True),
    (PARAMETERS, (2, 1), "batch", False, True, "linear", "constant", "unrelated", "independent", "plain", False, False),
    (PARAMETERS, (2, 1), "running", True, False, "linear", "late", "union", "independent", "redraw", False, True),
    (PARAMETERS, (1, 2), "update", True, True, "linear", "constant", "all", "independent", "redraw", True, True),
    (PARAMETERS, "random", "batch", True, False, "linear", "constant", "union", "balanced", "redraw", False, False),
    (PARAMETERS, (1, 0), "running", False, False, "uniform", "late", "last", "balanced", "plain", False, False),
    (STOP, (1, 1), "update", True, True, "linear", "constant", "last", "balanced", "redraw", False, False),
    (STOP, (2, 1), "running", True, False, "uniform", "constant", "union", "independent", "plain", True, False),
    (STOP, (1, 2), "batch", False, False, "uniform", "late", "last", "balanced", "redraw", False, False),
    (STOP, (1, 2), "running", True, False, "uniform", "late", "unrelated", "balanced", "plain", True, False),
    (STOP, "random", "batch", False, True, "uniform", "late", "all", "independent", "plain", False, False),
    (STOP, "random", "update", True, False, "uniform", "constant", "unrelated", "balanced", "plain", True, True),
    (STOP, (1, 0), "batch", False, True, "uniform", "late", "unrelated", "balanced", "redraw", True, True),
    (SAMPLE, (1, 1), "batch", False, True, "linear", "constant", "unrelated", "independent", "redraw", True, False),
    (SAMPLE, (2, 1), "update", True, True, "linear", "constant", "last", "independent", "redraw", False, True),
    (SAMPLE, (2, 1), "running", True, False, "uniform", "late", "all", "balanced", "redraw", False, True),
    (SAMPLE, (1, 2), "batch", True, True, "uniform", "constant", "union", "balanced", "redraw", True, True),
    (SAMPLE, "random", "running", True, True, "uniform", "late", "last", "balanced", "redraw", True, True),
    (SAMPLE, (1, 0), "update", True, False, "uniform", "constant", "union", "independent", "redraw", False, True),
    (SAMPLE, (1, 0), "running", False, False, "linear", "late", "all", "independent", "redraw", True, True),
)
# fmt: on
ROWS_OF_A_MODE = len(TABLE) // len(MODES)


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
    """For the network of this number in its table; seven networks in turn use all rows."""
    return [ROWS[ROWS_OF_A_MODE * mode + (number + 2 * mode) % ROWS_OF_A_MODE] for mode in range(len(MODES))]


def one_row(number: int) -> list[Row]:
    """For the network of this number in its table; as many networks in turn as there are rows use all rows."""
    return [ROWS[number % len(ROWS)]]
