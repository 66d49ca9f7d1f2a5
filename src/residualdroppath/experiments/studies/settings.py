"""Cells with their tries as recipes for any seed, each of the length that the cell's budget allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...training.recipe import TrainConfig
from .cache import canonical
from .costs import Costs
from .definition import Study, Values
from .keys import Keys
from .plan import Cell, iterations_under, plain_iterations


@dataclass(frozen=True)
class Setting:
    """A cell with one of its tries: a recipe for any seed."""

    cell: Cell
    tried: Values
    config: TrainConfig

    def of_seed(self, seed: int) -> TrainConfig:
        return canonical(self.config.model_copy(update={"seed": seed}))


@dataclass(frozen=True)
class Settings:
    """Those of a study."""

    study: Study
    keys: Keys
    costs: Costs

    def of_tries(self, cell: Cell, tries: Sequence[Values], *, measure: bool) -> list[Setting]:
        """One for each of these tries, with the iterations of the cell's budget; none while a cost is not known."""
        configs = [self.study.config(cell.point, cell.variant, tried) for tried in tries]
        by_cost = cell.budget.unit == "cost"
        costs = [self.costs.of(cell, config, time=measure and by_cost) for config in configs]
        if by_cost and None in costs:
            return []
        settings = []
        for tried, config, cost in zip(tries, configs, costs, strict=True):
            own = cost.per_iteration if cost else None
            iterations = iterations_under(cell.budget, config, self.unit(cell), own)
            settings.append(Setting(cell, tried, config.model_copy(update={"iterations": iterations})))
        return settings

    def of_row(self, cell: Cell, row: dict[str, Any]) -> Setting:
        """As a row of a record was run: its cost may have been timed again after its length was decided."""
        config = self.study.config(cell.point, cell.variant, row["chosen"])
        return Setting(cell, row["chosen"], config.model_copy(update={"iterations": row["iterations"]}))

    def unit(self, cell: Cell) -> int:
        """Iterations of plain training at the cell's point."""
        plain = self.study.plain(cell.point)
        return plain_iterations(plain, len(self.keys.data(plain).train))

    def tuned_as(self, cell: Cell) -> Cell:
        """The cell whose tries decide: of the variant that this one is like, under the budget nearest to its own."""
        like = self.study.variants[cell.variant].like
        if like is None:
            return cell
        budgets = self.study.budgets_of(like)
        same_unit = [budget for budget in budgets if budget.unit == cell.budget.unit]
        nearest = cell.budget if cell.budget in budgets else (same_unit or budgets)[0]
        return Cell(like, nearest, cell.point)
