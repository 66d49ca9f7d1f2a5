"""The measurement: contenders take turns, iteration by iteration, beside plain training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch

from ...core.planning.plan import Plan
from ...errors import UserError, first_line
from ...records.environment import environment
from ...records.intervals import ratio_of_means
from ...training.runtime import Stopwatch, pick_device
from ..progress import OnProgress, no_progress
from .config import OURS, BenchConfig
from .contenders import Contender, NotOfThisModel, make_contender
from .flop_counts import Counts, count
from .lower_bound import LowerBound
from .part_timings import PartTimer

BY_PLANS = ("naive", *OURS)  # in turn `drop_path` and `dropped_part`


@dataclass
class Timed:
    """Seconds of one contender beside plain ones: a pair for each plan and kind of iteration."""

    own: dict[str, list[float]]
    plain: dict[str, list[float]]
    plans: list[Plan | None]


def bench(config: BenchConfig, on_progress: OnProgress = no_progress) -> dict[str, Any]:
    """Measure, and return the record. Raises `UserError` for a model that cannot be measured."""
    device = pick_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    stopwatch = Stopwatch(device)
    contenders, left_out = _make_contenders(config, device)
    if config.compile:
        _compile_ahead(config, contenders, on_progress)
    timed, bound, plain_times = _take_turns(config, contenders, stopwatch, device, on_progress)
    rows = {}
    for name, times in timed.items():
        counted = config.counts and name in (*OURS, "plain")
        counts = count(name, config, times.plans, on_progress) if counted else None
        rows[name] = _row(name, config, times, bound, counts)
    return {
        "config": config.model_dump(mode="json"),
        "environment": environment(device),
        "left_out": left_out,
        "plain_over_floor": fmean(plain_times) / bound.of_plain() if bound else None,
        "rows": rows,
    }


def _make_contenders(config: BenchConfig, device: torch.device) -> tuple[dict[str, Contender], dict[str, str]]:
    contenders = {"plain": make_contender("plain", config, device)}
    _try_once(contenders["plain"], config)
    left_out: dict[str, str] = {}
    for name in config.contenders:
        if name not in contenders:
            try:
                contenders[name] = make_contender(name, config, device)
            except NotOfThisModel as error:
                left_out[name] = str(error)
    return contenders, left_out


def _try_once(plain: Contender, config: BenchConfig) -> None:
    """Raises `UserError` if the network does not run on such images."""
    try:
        plain.iteration()
    except (RuntimeError, ValueError, AssertionError) as error:
        size = config.image_size
        raise UserError(
            f"{config.model} does not train on {config.batch_size} images of {size}x{size}: {first_line(error)} "
            "Choose another `image_size` or `batch_size`."
        ) from error


def _compile_ahead(config: BenchConfig, contenders: dict[str, Contender], on_progress: OnProgress) -> None:
    """All that the plans to come need: a branch's graphs are compiled when it is first dropped, which no time is of."""
    iterations = 2 * (config.warmup + config.plans)
    for name, contender in contenders.items():
        for done in range(iterations):
            on_progress(f"compiling {name}", done, iterations)
            contender.iteration()
        contender.rewind()
        on_progress(f"compiling {name}", iterations, iterations)


def _take_turns(
    config: BenchConfig,
    contenders: dict[str, Contender],
    stopwatch: Stopwatch,
    device: torch.device,
    on_progress: OnProgress,
) -> tuple[dict[str, Timed], LowerBound | None, list[float]]:
    """Each cycle times every contender twice, next to a plain iteration of its own turn."""
    plain = contenders["plain"]
    timer = None
    if config.floor_rounds and not config.compile:
        timer = PartTimer(make_contender("plain", config, device), stopwatch)
    others = {name: contender for name, contender in contenders.items() if name != "plain"}
    timed = {name: Timed({}, {}, []) for name in others}
    plain_times: list[float] = []
    rounds_done = 0
    cycles = config.warmup + config.plans
    for cycle in range(cycles):
        counts = cycle >= config.warmup
        on_progress("iterations", cycle, cycles)
        for kind in ("drop_path", "dropped_part"):
            beside = stopwatch(plain.iteration)
            if counts:
                plain_times.append(beside)
            for name, contender in others.items():
                plan = contender.plan
                if name in BY_PLANS:
                    assert plan is not None and plan.kind == kind
                seconds = stopwatch(contender.iteration)
                if counts:
                    own_kind = kind if name in BY_PLANS else "every"
                    timed[name].own.setdefault(own_kind, []).append(seconds)
                    timed[name].plain.setdefault(own_kind, []).append(beside)
                    timed[name].plans.append(plan)
        if counts and timer and rounds_done * config.plans < config.floor_rounds * (cycle - config.warmup + 1):
            rounds_done += 1
            timer.round()
    on_progress("iterations", cycles, cycles)
    if timer:
        timer.close()
    for contender in contenders.values():
        contender.close()
    timed = {"plain": Timed({"every": plain_times}, {"every": plain_times}, [None]), **timed}
    return timed, timer.lower_bound if timer else None, plain_times


def _row(
    name: str, config: BenchConfig, times: Timed, bound: LowerBound | None, counts: Counts | None
) -> dict[str, Any]:
    by_plans = name in BY_PLANS
    own, plain = (_of_cycles(kinds) if by_plans else kinds["every"] for kinds in (times.own, times.plain))
    per_iteration = ratio_of_means(own, plain)
    cycle = 2 if by_plans else 1
    row: dict[str, Any] = {
        "by_kind": {kind: asdict(ratio_of_means(times.own[kind], times.plain[kind])) for kind in times.own},
        "per_iteration": asdict(per_iteration),
        "per_cycle": {end: cycle * value for end, value in asdict(per_iteration).items()},
        "counts": asdict(counts) if counts else None,
        "floor": None,
        "over_floor": None,
    }
    if bound and (name in OURS or name == "plain"):
        seconds = _lower_bounds(name, config, times, bound)
        row["floor"] = sum(seconds) / sum(sum(values) for values in times.plain.values())
        row["over_floor"] = sum(sum(values) for values in times.own.values()) / sum(seconds)
    return row


def _lower_bounds(name: str, config: BenchConfig, times: Timed, bound: LowerBound) -> list[float]:
    """The lower bound of each iteration that was timed."""
    if name == "plain":
        return [bound.of_plain()] * len(times.own["every"])
    rows = config.batch_size if name == "sample" else None
    freeze = OURS[name]["freeze"]
    return [bound.of_plan(plan, freeze, rows) for plan in times.plans if plan is not None]


def _of_cycles(kinds: dict[str, list[float]]) -> list[float]:
    return [sum(pair) for pair in zip(kinds["drop_path"], kinds["dropped_part"], strict=True)]
