"""The choices that the method leaves open, checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .freezing.frozen_norms import FrozenNorm
from .planning.plan import RATES_OVER_TIME, Granularity, RateOverDepth, RateOverTime, Schedule

Freeze = Literal["parameters", "stop_gradient"]


@dataclass(frozen=True)
class Options:
    """Options of `ResidualDropPath`, which documents them. Raises `ValueError` for what is not allowed."""

    drop_path_rate: float = 0.1
    rate_over_depth: RateOverDepth = "linear"
    freeze: Freeze = "parameters"
    granularity: Granularity = "batch"
    scale_by_keep: bool = True
    frozen_norm: FrozenNorm = "update"
    schedule: Schedule = (1, 1)
    rate_over_time: RateOverTime = None
    total_iterations: int | None = None
    train_trunk: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        rate = self.drop_path_rate
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ValueError(f"`drop_path_rate` must be in [0, 1), got {rate!r}; use 0 to disable.")
        _check_choice("rate_over_depth", self.rate_over_depth, get_args(RateOverDepth))
        _check_choice("freeze", self.freeze, get_args(Freeze))
        _check_choice("granularity", self.granularity, get_args(Granularity))
        _check_choice("frozen_norm", self.frozen_norm, get_args(FrozenNorm))
        for name in ("scale_by_keep", "train_trunk"):
            _check_choice(name, getattr(self, name), (True, False))
        if self.granularity == "sample" and self.freeze != "stop_gradient":
            raise ValueError(
                f"`granularity='sample'` goes with `freeze='stop_gradient'` only, got freeze={self.freeze!r}: a "
                "parameter cannot be frozen for some rows of a batch. Set `freeze='stop_gradient'`, or "
                "`granularity='batch'`."
            )
        self._check_schedule()
        self._check_time()
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ValueError(f"`seed` must be an integer, got {self.seed!r}.")

    def _check_schedule(self) -> None:
        schedule: Any = self.schedule
        if isinstance(schedule, list):
            object.__setattr__(self, "schedule", tuple(schedule))
            schedule = self.schedule
        pair = isinstance(schedule, tuple) and len(schedule) == 2 and all(type(count) is int for count in schedule)
        if schedule != "random" and not (pair and schedule[0] >= 1 and schedule[1] >= 0):
            raise ValueError(
                "`schedule` must be 'random' or (drop_path iterations >= 1, dropped_part iterations >= 0) "
                f"per cycle, got {schedule!r}; use (1, 1) to alternate, (1, 0) for drop path alone."
            )

    def _check_time(self) -> None:
        names = tuple(RATES_OVER_TIME)
        if self.rate_over_time is not None and not callable(self.rate_over_time):
            _check_choice("rate_over_time", self.rate_over_time, names)
        total = self.total_iterations
        if total is not None and (type(total) is not int or total < 1):
            raise ValueError(f"`total_iterations` must be a positive integer, got {total!r}.")
        if self.rate_over_time not in (None, "constant") and total is None:
            raise ValueError(
                f"`rate_over_time={self.rate_over_time!r}` needs `total_iterations`, got None; pass the number of "
                "optimizer updates of the whole training."
            )

    @property
    def rate_factor(self) -> Callable[[float], float] | None:
        """`rate_over_time` as a function of progress."""
        if isinstance(self.rate_over_time, str):
            return RATES_OVER_TIME[self.rate_over_time]
        return self.rate_over_time

    def as_dict(self) -> dict[str, Any]:
        """Options as plain values, for a checkpoint."""
        plain = dict(vars(self))
        if callable(self.rate_over_time):
            plain["rate_over_time"] = f"callable {getattr(self.rate_over_time, '__qualname__', '')}".strip()
        if self.schedule != "random":
            plain["schedule"] = list(self.schedule)
        return plain


def _check_choice(name: str, value: Any, allowed: tuple) -> None:
    if isinstance(value, str) != isinstance(allowed[0], str) or value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}.")
