"""What an iteration costs relative to a plain one, measured by alternating the two."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import Tensor

from ...data.images import ImageData
from ...training.recipe import Method, TrainConfig
from ...training.runtime import Stopwatch
from ...training.trainer import Trainer

WARMUP_ROUNDS = 6


@dataclass(frozen=True)
class Cost:
    """Time relative to a plain iteration: per iteration, and per cycle, that is per update of the trunk."""

    per_iteration: float
    per_cycle: float
    num_plans: int


def measure_costs(
    config: TrainConfig, methods: list[Method], data: ImageData, *, rounds: int = 48, seconds: float = 60.0
) -> dict[Method, Cost]:
    """The costs of iterations of each method, relative to plain ones (`measure_against`)."""
    contenders = {method: config.model_copy(update={"method": method}) for method in methods if method != "plain"}
    plain = config.model_copy(update={"method": "plain"})
    costs: dict[Any, Cost] = measure_against(plain, contenders, lambda _: data, rounds=rounds, seconds=seconds)
    return costs


def measure_against(
    plain_config: TrainConfig,
    configs: Mapping[Any, TrainConfig],
    data_of: Callable[[TrainConfig], ImageData],
    *,
    rounds: int = 48,
    seconds: float = 60.0,
) -> dict[Any, Cost]:
    """Time an iteration of each of `configs` in turn with those of `plain_config`, in one process.

    Stops after `rounds` rounds or, once 12 are done, after about `seconds`; a longer cycle is run whole. Where rates
    change over training, a training of as many iterations as there are rounds is timed, whole. Also returns
    `"plain"`, of cost 1.
    """
    fewest = max(12, *(_cycle_length(config) for config in configs.values())) if configs else 12
    if any(_varies(config) for config in configs.values()):
        fewest = max(fewest, rounds)
    rounds = max(rounds, fewest)
    whole = {"iterations": WARMUP_ROUNDS + rounds}
    plain = Trainer(plain_config.model_copy(update=whole), data_of(plain_config))
    contenders = {name: Trainer(config.model_copy(update=whole), data_of(config)) for name, config in configs.items()}
    stopwatch = Stopwatch(plain.device)
    times: dict[Any, dict[str, list[float]]] = {name: {} for name in contenders}
    plain_times: list[float] = []
    trainers = (plain, *contenders.values())
    for trainer in trainers:
        trainer.model.train()

    started = time.perf_counter()
    for done, batches in enumerate(zip(*map(_endless_batches, trainers), strict=True)):
        if done == WARMUP_ROUNDS:
            started = time.perf_counter()
        rounds_done = done - WARMUP_ROUNDS
        if rounds_done >= rounds or (rounds_done >= fewest and time.perf_counter() - started > seconds):
            break
        plain_time = stopwatch(lambda batch=batches[0]: plain.train_iteration(*batch))
        if rounds_done >= 0:
            plain_times.append(plain_time)
        for (name, trainer), batch in zip(contenders.items(), batches[1:], strict=True):
            kind = trainer.kind
            taken = stopwatch(lambda r=trainer, batch=batch: r.train_iteration(*batch))
            if rounds_done >= 0:
                times[name].setdefault(kind, []).append(taken)
    plain_mean = fmean(plain_times)
    costs = {name: _cost(times[name], plain_mean, trainer) for name, trainer in contenders.items()}
    return {"plain": Cost(1.0, 1.0, len(plain_times)), **costs}


def _cost(times: dict[str, list[float]], plain_mean: float, trainer: Trainer) -> Cost:
    num_plans = sum(map(len, times.values()))
    schedule = (1, 0) if trainer.rdp is None else trainer.rdp.options.schedule
    per_cycle = (1, 1) if schedule == "random" else schedule
    if trainer.rdp is None or _varies(trainer.config):
        per_iteration = fmean(itertools.chain(*times.values())) / plain_mean
        return Cost(per_iteration, per_iteration * sum(per_cycle), num_plans)
    # By kind, so that a round more of one of them does not count.
    by_kind = {kind: fmean(values) / plain_mean for kind, values in times.items()}
    cycle = per_cycle[0] * by_kind["drop_path"] + per_cycle[1] * by_kind.get("dropped_part", 0.0)
    return Cost(cycle / sum(per_cycle), cycle, num_plans)


def _cycle_length(config: TrainConfig) -> int:
    schedule = config.options(seed=0, total_iterations=1).schedule
    return 2 if schedule == "random" else sum(schedule)


def _varies(config: TrainConfig) -> bool:
    """Whether kinds of iteration come otherwise than the schedule has them, or cost more at some times."""
    options = config.options(seed=0, total_iterations=1)
    return options.rate_over_time not in (None, "constant") or getattr(options, "empty_draw", None) == "plain"


def _endless_batches(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in itertools.count(1):
        yield from trainer.batches(epoch)
