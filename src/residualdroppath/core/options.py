"""The choices that the method leaves open: declared here alone, and checked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, get_args

DrawForm = Literal["independent", "balanced"]
EmptyDraw = Literal["redraw", "plain"]
Freeze = Literal["parameters", "stop_gradient"]
FrozenNorm = Literal["update", "batch", "running"]
Granularity = Literal["batch", "sample"]
RateOverDepth = Literal["linear", "uniform"]
RateOverTime = Literal["constant", "warmup", "early", "late", "decay"] | Callable[[float], float] | None
Schedule = tuple[int, int] | Literal["random"]
Trains = Literal["last", "union", "unrelated", "all"]

RATES_OVER_TIME: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "warmup": lambda progress: min(1.0, 10 * progress),
    "early": lambda progress: 1.0 if progress < 0.5 else 0.0,
    "late": lambda progress: 0.0 if progress < 0.5 else 1.0,
    "decay": lambda progress: max(0.0, 1 - progress / 0.8),
}
STATE_FORMAT = 3
NUM_SAMPLES_OF_A_FUNCTION = 33
# Options that a checkpoint need not agree on: they change no plan.
FREE_ON_RESUME = ("check_frozen",)
# Options without effect where a schedule has no `dropped_part` iterations.
OF_DROPPED_PART = ("freeze", "frozen_norm", "trains", "empty_draw", "train_trunk")


def _option(default: Any, description: str) -> Any:
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"description": description})
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class Options:
    """All options of `ResidualDropPath`. Raises `ValueError` for what is not allowed.

    Every field describes itself (`dataclasses.fields(Options)`, `field.metadata["description"]`); recipes and the
    command line are made from these.
    """

    drop_path_rate: float | Literal["model"] = _option(
        0.1, "largest drop rate, in [0, 1), 0 is plain training; or `model`: the rates of the model's own drop path"
    )
    rate_over_depth: RateOverDepth = _option(
        "linear",
        "linear: from 0 at the first block to the rate at the last, timm's rule; uniform: the same everywhere",
    )
    drop_rates: Mapping[str, float] = _option(
        {}, "rates by glob pattern over branch names; the last that matches counts, 0 is never dropped"
    )
    include: tuple[str, ...] = _option((), "glob patterns: only branches of these names are dropped")
    exclude: tuple[str, ...] = _option((), "glob patterns: branches of these names are never dropped")
    freeze: Freeze = _option(
        "parameters",
        "in dropped_part iterations, parameters: gradient flows through frozen branches; stop_gradient: it does not",
    )
    granularity: Granularity = _option(
        "batch", "batch: a branch is dropped for the whole batch; sample: row by row, with stop_gradient"
    )
    scale_by_keep: bool = _option(True, "divide a kept branch by its keep probability in drop_path iterations")
    frozen_norm: FrozenNorm = _option(
        "update",
        "norms of frozen parts, update: as in training; batch: running statistics stay; running: these are used",
    )
    schedule: Schedule = _option((1, 1), "(drop_path, dropped_part) iterations of a cycle, or random")
    trains: Trains = _option(
        "last",
        "what dropped_part iterations train, last: what the last draw of the cycle dropped; union: what any of its "
        "draws dropped; controls, unrelated: a random set of the same distribution; all: everything, trunk included",
    )
    draw: DrawForm = _option(
        "independent",
        "independent: each branch by itself; balanced: nearly the same number of branches in each draw, and each "
        "branch equally often",
    )
    empty_draw: EmptyDraw = _option(
        "redraw",
        "a draw to be trained that drops nothing, redraw: is drawn again, which raises the rates; plain: makes a "
        "plain iteration, and the next one draws again",
    )
    rate_over_time: RateOverTime = _option(
        None, "factor on the rates over training: constant, warmup, early, late or decay; needs total_iterations"
    )
    total_iterations: int | None = _option(None, "optimizer updates of the whole training, for rate_over_time")
    train_trunk: bool = _option(False, "let the trunk learn in dropped_part iterations too")
    check_frozen: bool = _option(True, "compare values of frozen parameters after each optimizer step")
    seed: int = _option(0, "of the draws")

    def __post_init__(self) -> None:
        rate: Any = self.drop_path_rate
        if rate != "model" and (isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= float(rate) < 1):
            raise ValueError(
                f'`drop_path_rate` must be in [0, 1), got {rate!r}; use 0 to disable, or "model" for the rates of the '
                "model's own drop path."
            )
        for name in ("include", "exclude"):
            object.__setattr__(self, name, as_patterns(name, getattr(self, name)))
        object.__setattr__(self, "drop_rates", as_drop_rates(self.drop_rates))
        _check_choice("rate_over_depth", self.rate_over_depth, get_args(RateOverDepth))
        _check_choice("freeze", self.freeze, get_args(Freeze))
        _check_choice("granularity", self.granularity, get_args(Granularity))
        _check_choice("frozen_norm", self.frozen_norm, get_args(FrozenNorm))
        _check_choice("trains", self.trains, get_args(Trains))
        _check_choice("draw", self.draw, get_args(DrawForm))
        _check_choice("empty_draw", self.empty_draw, get_args(EmptyDraw))
        for name in ("scale_by_keep", "train_trunk", "check_frozen"):
            _check_choice(name, getattr(self, name), (True, False))
        if self.granularity == "sample" and self.freeze != "stop_gradient":
            raise ValueError(
                f"`granularity='sample'` goes with `freeze='stop_gradient'` only, got freeze={self.freeze!r}: a "
                "parameter cannot be frozen for some rows of a batch. Set `freeze='stop_gradient'`, or "
                "`granularity='batch'`."
            )
        if self.granularity == "sample" and self.empty_draw != "redraw":
            raise ValueError(
                "`granularity='sample'` goes with `empty_draw='redraw'` only, got empty_draw="
                f"{self.empty_draw!r}: whether a batch drops nothing is known only when its number of rows is. Set "
                "`empty_draw='redraw'`, or `granularity='batch'`."
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

    @property
    def trains_dropped(self) -> bool:
        """Whether the schedule has `dropped_part` iterations."""
        return self.schedule == "random" or self.schedule[1] > 0

    @property
    def redraws(self) -> bool:
        """Whether draws that drop nothing are drawn again, which raises the rates."""
        return self.trains_dropped and self.empty_draw == "redraw"

    @property
    def may_drop(self) -> bool:
        """Whether any rate may be above 0."""
        return self.drop_path_rate != 0 or any(self.drop_rates.values())

    def as_dict(self) -> dict[str, Any]:
        """Options as plain values, for a checkpoint. A function is given by its name and by values of it."""
        plain = {name.name: getattr(self, name.name) for name in dataclasses.fields(self)}
        plain["drop_rates"] = [list(item) for item in self.drop_rates.items()]  # their order counts
        plain["include"], plain["exclude"] = list(self.include), list(self.exclude)
        if callable(self.rate_over_time):
            last = NUM_SAMPLES_OF_A_FUNCTION - 1
            plain["rate_over_time"] = {
                "function": getattr(self.rate_over_time, "__qualname__", type(self.rate_over_time).__qualname__),
                "values": [float(self.rate_over_time(place / last)) for place in range(last + 1)],
            }
        if self.schedule != "random":
            plain["schedule"] = list(self.schedule)
        return plain

    def require_resumable(self, saved: Mapping[str, Any]) -> None:
        """Raise `ValueError` if a training with the options `saved` (of `as_dict`) cannot go on with these.

        An option that `saved` does not know, being older, had its default then. `total_iterations` may grow.
        """
        own, defaults = self.as_dict(), Options().as_dict()
        if unknown := saved.keys() - own.keys():
            raise ValueError(
                f"The state was saved with options that this version does not know: {', '.join(sorted(unknown))}; "
                "update residualdroppath to resume."
            )
        for name, value in own.items():
            before = saved.get(name, defaults[name])
            grows = name == "total_iterations" and None not in (value, before) and value >= before
            # States of format 1 hold the name of a function alone.
            same_name = (
                name == "rate_over_time" and isinstance(value, dict) and before == f"callable {value['function']}"
            )
            if name not in FREE_ON_RESUME and value != before and not grows and not same_name:
                shown = [_name_of_function(each) for each in (before, value)]
                difference = f"{name}={shown[0]}, this one has {shown[1]}"
                if shown[0] == shown[1]:
                    difference += ", which gives other values"
                raise ValueError(
                    f"The state was saved with {difference}; "
                    "construct ResidualDropPath with the same options to resume."
                )


def make_options(options: Options | None, keywords: dict[str, Any]) -> Options:
    """`options`, or options made from `keywords`. Raises `TypeError` for both at once and for unknown names."""
    names = [each.name for each in dataclasses.fields(Options)]
    if unknown := [name for name in keywords if name not in names]:
        raise TypeError(f"ResidualDropPath has no option `{unknown[0]}`; it has {', '.join(names)}.")
    if options is None:
        return Options(**keywords)
    if keywords:
        raise TypeError(
            f"Pass either `options` or keywords, got `options` and {', '.join(keywords)}; "
            "use `dataclasses.replace(options, ...)` to change some."
        )
    if not isinstance(options, Options):
        raise TypeError(f"`options` must be an Options, got {options!r}.")
    return options


def as_drop_rates(value: Any) -> dict[str, float]:
    """`drop_rates` as a dict of its own; raises `ValueError` for anything but rates in [0, 1) by pattern."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"`drop_rates` must map patterns over branch names to rates in [0, 1), got {value!r}.")
    for pattern in value:
        _check_pattern("drop_rates", pattern)
    return {pattern: check_rate(f"drop_rates[{pattern!r}]", rate) for pattern, rate in value.items()}


def as_patterns(argument: str, value: Any) -> tuple[str, ...]:
    """`include` or `exclude` as a tuple, a string as one pattern; raises `ValueError` for anything else."""
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, Sequence):
        raise ValueError(
            f"`{argument}` must be a pattern over branch names or a sequence of them, got {value!r}; "
            "`print(rdp)` lists the names."
        )
    for pattern in value:
        _check_pattern(argument, pattern)
    return tuple(value)


def check_rate(argument: str, rate: Any) -> float:
    """`rate`, which must be a number in [0, 1)."""
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= float(rate) < 1:
        raise ValueError(f"`{argument}` must be in [0, 1), got {rate!r}; use 0 for never.")
    return float(rate)


def _check_pattern(argument: str, pattern: Any) -> None:
    if not isinstance(pattern, str) or not pattern:
        raise ValueError(
            f"`{argument}` must hold patterns over branch names, such as 'layer4.*', got {pattern!r}; "
            "`print(rdp)` lists the names."
        )


def _name_of_function(plain: Any) -> str:
    return f"the function {plain['function']}" if isinstance(plain, dict) and "function" in plain else repr(plain)


def _check_choice(name: str, value: Any, allowed: tuple) -> None:
    if isinstance(value, str) != isinstance(allowed[0], str) or value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}.")
