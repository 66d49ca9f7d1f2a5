"""Costs are ratios by kind of iteration. No test says how fast anything is."""

from __future__ import annotations

from typing import Any

import pytest

from residualdroppath.experiments.compare import cost as cost_module
from residualdroppath.experiments.compare.cost import Cost, measure_costs
from residualdroppath.training.recipe import Method, TrainConfig
from residualdroppath.training.run import load_config_data
from residualdroppath.training.trainer import Trainer

SECONDS = {"plain": 10.0, "drop_path": 8.0, "dropped_part": 5.0}
METHODS: list[Method] = ["plain", "drop_path", "residual_drop_path"]


def tiny(**options: Any) -> TrainConfig:
    defaults = {"depth": 8, "width": 2, "train_size": 64, "batch_size": 32, "drop_path_rate": 0.5, "device": "cpu"}
    return TrainConfig(**{**defaults, **options})


@pytest.fixture
def known_times(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Iterations take what `SECONDS` says by their kind; returns the kinds timed, in order."""
    kinds: list[str] = []
    iteration = Trainer.train_iteration

    def noted(self: Trainer, *batch: Any) -> Any:
        kinds.append(self.kind)
        return iteration(self, *batch)

    class KnownStopwatch(cost_module.Stopwatch):
        def __call__(self, work: Any) -> float:
            work()
            return SECONDS[kinds[-1]]

    monkeypatch.setattr(Trainer, "train_iteration", noted)
    monkeypatch.setattr(cost_module, "Stopwatch", KnownStopwatch)
    return kinds


def measured(config: TrainConfig, methods: list[Method] = METHODS, rounds: int = 4) -> dict[Method, Cost]:
    return measure_costs(config, methods, load_config_data(config), rounds=rounds, seconds=0)


def test_ratios_by_kind(known_times: list[str]) -> None:
    costs = measured(tiny())
    assert costs["plain"].per_iteration == costs["plain"].per_cycle == 1.0
    assert costs["drop_path"].per_iteration == costs["drop_path"].per_cycle == pytest.approx(0.8)
    assert costs["residual_drop_path"].per_iteration == pytest.approx((0.8 + 0.5) / 2)
    assert costs["residual_drop_path"].per_cycle == pytest.approx(0.8 + 0.5)


def test_every_iteration_stands_beside_a_plain_one(known_times: list[str]) -> None:
    measured(tiny())
    assert known_times[::3] == ["plain"] * (len(known_times) // 3)
    assert known_times[1::3] == ["drop_path"] * (len(known_times) // 3)
    assert known_times[2:14:3] == ["drop_path", "dropped_part"] * 2


@pytest.mark.parametrize(
    ("schedule", "cycle"), [((2, 1), 2 * 0.8 + 0.5), ((1, 0), 0.8), ((1, 3), 0.8 + 3 * 0.5), ((1, 30), 0.8 + 30 * 0.5)]
)
def test_schedules_are_weighted(known_times: list[str], schedule: tuple[int, int], cycle: float) -> None:
    """A kind that comes once in a long cycle is timed too."""
    found = measured(tiny(schedule=schedule), ["residual_drop_path"])["residual_drop_path"]
    assert found.per_cycle == pytest.approx(cycle)
    assert found.per_iteration == pytest.approx(cycle / sum(schedule))


def test_random_schedule_counts_both_kinds_alike(known_times: list[str]) -> None:
    found = measured(tiny(schedule="random"), ["residual_drop_path"], rounds=24)["residual_drop_path"]
    assert found.per_iteration == pytest.approx(0.65) and found.per_cycle == pytest.approx(1.3)


def test_rate_0_costs_what_its_iterations_cost(known_times: list[str]) -> None:
    found = measured(tiny(drop_path_rate=0), ["residual_drop_path"])["residual_drop_path"]
    assert found.num_plans >= 12 and set(known_times) == {"plain", "drop_path"}


def test_by_a_real_clock() -> None:
    costs = measured(tiny())
    assert costs.keys() == set(METHODS)
    assert all(cost.per_iteration > 0 and cost.per_cycle >= cost.per_iteration for cost in costs.values())
