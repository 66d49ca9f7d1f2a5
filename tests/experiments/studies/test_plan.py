"""Budgets as numbers of iterations."""

from __future__ import annotations

from typing import Any

import pytest

from residualdroppath.experiments.studies.definition import Budget
from residualdroppath.experiments.studies.plan import iterations_under, plain_iterations, trunk_updates
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import load_config_data
from residualdroppath.training.trainer import Trainer


def under(unit: Any, scale: float = 1, cost: float = 0.5, **options: Any) -> int:
    return iterations_under(Budget(unit, scale), TrainConfig(**options), 100, cost)


def test_unit_of_a_budget() -> None:
    assert plain_iterations(TrainConfig(epochs=3, batch_size=50), 149) == 6
    assert plain_iterations(TrainConfig(epochs=3, iterations=7), 149) == 7


@pytest.mark.parametrize(
    ("budget", "options", "expected"),
    [
        (("iterations",), {}, 100),
        (("iterations", 0.7), {}, 70),
        (("cost",), {}, 200),
        (("cost", 0.7), {}, 140),
        (("cost", 1, 0.6), {"schedule": (2, 1), "cycle": "same_batch"}, 168),  # 166.7 to the nearest whole cycle
        (("trunk_updates",), {"method": "plain"}, 100),
        (("trunk_updates", 0.001), {}, 1),
        (("trunk_updates",), {"method": "drop_path", "schedule": (1, 5)}, 100),
        (("trunk_updates",), {}, 199),  # the last needs no dropped_part iteration after it
        (("trunk_updates",), {"cycle": "same_batch"}, 200),
        (("trunk_updates",), {"schedule": (3, 1)}, 133),
        (("trunk_updates",), {"schedule": (1, 3)}, 397),
        (("trunk_updates",), {"train_trunk": True}, 100),
        (("trunk_updates",), {"drop_path_rate": 0}, 100),
        (("trunk_updates",), {"schedule": "random"}, 199),
        (("trunk_updates",), {"rate_over_time": "early"}, 134),  # (n / 2) / 2 + n / 2
    ],
)
def test_iterations_of_a_budget(budget: tuple[Any, ...], options: dict[str, Any], expected: int) -> None:
    assert abs(under(*budget, **options) - expected) <= (1 if "rate_over_time" in options else 0)


@pytest.mark.parametrize("rate_over_time", ["constant", "early", "late"])
@pytest.mark.parametrize("schedule", [(1, 1), (3, 2)])
def test_updates_of_the_trunk_are_those_of_a_training(rate_over_time: str, schedule: tuple[int, int]) -> None:
    values = {"train_size": 64, "depth": 8, "width": 2, "batch_size": 32, "iterations": 11, "device": "cpu"}
    method = {"rate_over_time": rate_over_time, "schedule": schedule, "drop_path_rate": 0.5}
    config = TrainConfig.model_validate({**values, **method})
    trainer = Trainer(config, load_config_data(config))
    for epoch in range(1, trainer.epochs + 1):
        trainer.train_epoch(epoch, lambda *progress: None)
    assert trainer.iteration == 11 and trainer.trunk_updates == trunk_updates(config, 11)
