"""How long each variant is trained: a budget in units of plain training as a number of iterations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import UserError
from ...training.controls import DROP_PATH_ALONE, always_trains_trunk, iterations_of_cycle
from ...training.recipe import TrainConfig
from .definition import Budget, Values


@dataclass(frozen=True)
class Cell:
    """One row of the table: a variant at a point of the grid, under a budget."""

    variant: str
    budget: Budget
    point: Values = field(default_factory=dict, hash=False)  # its values may be lists

    @property
    def name(self) -> str:
        at = ", ".join(f"{name} {value}" for name, value in self.point.items())
        return " | ".join(part for part in (self.variant, self.budget.name, at) if part)


def plain_iterations(plain: TrainConfig, train_images: int) -> int:
    """Those of one unit: plain training by the base recipe."""
    if plain.batch_size > train_images:
        raise UserError(f"`batch_size` must be at most the {train_images} training images, got {plain.batch_size}.")
    return plain.iterations or plain.epochs * (train_images // plain.batch_size)


def iterations_under(budget: Budget, config: TrainConfig, plain: int, cost: float | None) -> int:
    """How many iterations `config` gets where plain training takes `plain`; one of its own costs `cost` plain ones."""
    if budget.unit == "iterations":
        wanted = budget.scale * plain
    elif budget.unit == "cost":
        assert cost is not None
        wanted = budget.scale * plain / cost
    else:
        wanted = iterations_with(config, max(1, round(budget.scale * plain)))
    cycle = iterations_of_cycle(config) if config.cycle == "same_batch" else 1
    return max(1, round(wanted / cycle)) * cycle


def iterations_with(config: TrainConfig, updates: int) -> int:
    """The fewest iterations with so many updates of the trunk."""
    low, high = updates - 1, updates
    while trunk_updates(config, high) < updates:
        low, high = high, 2 * high
        if high > 1000 * updates:
            raise UserError("A `schedule` has too few updates of the trunk for a budget of equal `trunk_updates`.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if trunk_updates(config, middle) >= updates else (middle, high)
    return high


def trunk_updates(config: TrainConfig, iterations: int) -> int:
    """Updates of the trunk in a training of so many iterations, as the schedule has them; the mean of a random one."""
    options = config.options(seed=0, total_iterations=iterations)
    alone = config.method in ("plain", *DROP_PATH_ALONE)
    if alone or always_trains_trunk(options) or not options.trains_dropped or not options.may_drop:
        return iterations
    num_drop_path, num_dropped_part = (1, 1) if options.schedule == "random" else options.schedule
    factor = options.rate_factor or (lambda progress: 1.0)

    def trains_trunk(iteration: int) -> bool:
        """In `drop_path` iterations, and where the draw in force had nothing to drop."""
        place = iteration % (num_drop_path + num_dropped_part)
        decided_at = iteration - max(0, place - num_drop_path + 1)
        return decided_at == iteration or factor(decided_at / iterations) == 0

    return sum(map(trains_trunk, range(iterations)))


def seed_major(cells: Sequence[Cell], seeds: Sequence[int]) -> list[tuple[Cell, int]]:
    """All cells of one seed before those of the next, so that a stopped study has whole pairs."""
    return [(cell, seed) for seed in seeds for cell in cells]
