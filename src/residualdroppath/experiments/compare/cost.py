"""What an iteration costs relative to a plain one, measured by alternating the two."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

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
    """Time iterations of each method in turn with plain ones, in one process, on the same batches.

    Stops after `rounds` rounds or, once 12 are done, after about `seconds`; a longer cycle is run whole.
    """
    schedule = config.options(seed=config.seed, total_iterations=1).schedule
    fewest = 12 if schedule == "random" else max(12, sum(schedule))
    rounds = max(rounds, fewest)
    contenders: dict[Method, Trainer] = {
        method: Trainer(config.model_copy(update={"method": method}), data) for method in methods if method != "plain"
    }
    plain = Trainer(config.model_copy(update={"method": "plain"}), data)
    stopwatch = Stopwatch(plain.device)
    times: dict[Method, dict[str, list[float]]] = {method: {} for method in contenders}
    plain_times: list[float] = []
    for trainer in (plain, *contenders.values()):
        trainer.model.train()

    started = time.perf_counter()
    for done, (images, labels) in enumerate(_endless_batches(plain)):
        if done == WARMUP_ROUNDS:
            started = time.perf_counter()
        rounds_done = done - WARMUP_ROUNDS
        if rounds_done >= rounds or (rounds_done >= fewest and time.perf_counter() - started > seconds):
            break
        plain_time = stopwatch(lambda i=images, t=labels: plain.train_iteration(i, t))
        if rounds_done >= 0:
            plain_times.append(plain_time)
        for method, trainer in contenders.items():
            kind = trainer.kind
            taken = stopwatch(lambda r=trainer, i=images, t=labels: r.train_iteration(i, t))
            if rounds_done >= 0:
                times[method].setdefault(kind, []).append(taken)
    plain_mean = fmean(plain_times)
    costs: dict[Method, Cost] = {
        method: _cost(times[method], plain_mean, trainer) for method, trainer in contenders.items()
    }
    return {"plain": Cost(1.0, 1.0, len(plain_times)), **costs}


def _cost(times: dict[str, list[float]], plain_mean: float, trainer: Trainer) -> Cost:
    by_kind = {kind: fmean(values) / plain_mean for kind, values in times.items()}
    num_plans = sum(map(len, times.values()))
    assert trainer.rdp is not None
    schedule = trainer.rdp.options.schedule
    per_cycle = (1, 1) if schedule == "random" else schedule
    cycle = per_cycle[0] * by_kind["drop_path"] + per_cycle[1] * by_kind.get("dropped_part", 0.0)
    return Cost(cycle / sum(per_cycle), cycle, num_plans)


def _endless_batches(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in itertools.count(1):
        yield from trainer.batches(epoch)
