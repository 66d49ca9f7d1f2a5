"""`study`: from a definition to its record: costs, tries, the choice, all seeds, the test set once, and comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ...errors import UserError
from ...records.environment import environment
from ...records.paths import expanded
from ...training.recipe import TrainConfig
from ...training.runtime import pick_device
from .cache import EVALUATED, Cache
from .costs import Costs
from .definition import Study
from .earlier import Earlier, restore
from .engines import Engine
from .keys import Keys
from .plan import Cell, seed_major
from .progress import StudyProgress
from .settings import Setting, Settings
from .statistics import paired, summary
from .summary import summarise
from .trial import Trial


@dataclass
class StudyRun:
    """A study on its way. `only` these variants are run, what is there of others is shown; `threads`: of a trial.

    What `earlier`, a record, holds is not run again.
    """

    study: Study
    cache: Cache
    engine: Engine | None  # None: nothing is run, what is there is reported
    threads: int
    progress: StudyProgress
    only: Sequence[str] = ()
    earlier: Earlier | None = None

    def __post_init__(self) -> None:
        if unknown := [name for name in self.only if name not in self.study.variants]:
            raise UserError(f"`only` must name variants ({', '.join(self.study.variants)}), got {unknown[0]!r}.")
        names = self.study.variants
        budgets = dict.fromkeys(budget for name in names for budget in self.study.budgets_of(name))
        self.cells = [
            Cell(name, budget, point)
            for point in self.study.points
            for budget in budgets
            for name in names
            if budget in self.study.budgets_of(name)
        ]
        self.keys = Keys(self.study)
        self.costs = Costs(self.keys, self.cache, self.threads, self.engine is not None, self.progress)
        self.settings = Settings(self.study, self.keys, self.costs)

    def record(self) -> dict[str, Any]:
        """Run what is missing, and return all that came out."""
        tuned_as = {cell: self.settings.tuned_as(cell) for cell in self.cells}
        active = [cell for cell in self.cells if not self.only or cell.variant in self.only]
        needed = {*active, *(tuned_as[cell] for cell in active)}
        known = self._take_over()
        choices: dict[Cell, int | None] = dict.fromkeys(tuned_as.values(), 0)
        tries = {
            cell: self.settings.of_tries(cell, self.study.tries_of(cell.variant), measure=cell in needed)
            for cell in choices
            if cell not in known
        }
        if self.study.tuned:
            settings = [setting for cell in tries if cell in needed for setting in tries[cell]]
            self._run("tuning", self._trials(settings, self.study.tune.seeds, tested=False))
            choices = {cell: self._choose(tries[cell]) for cell in tries}
            choices |= {cell: self.study.tries_of(cell.variant).index(row["chosen"]) for cell, row in known.items()}
        chosen: dict[Cell, Setting] = {}
        for cell in self.cells:
            choice = choices[tuned_as[cell]]
            if choice is None or tries.get(tuned_as[cell]) == []:
                continue
            tried = self.study.tries_of(cell.variant)[choice]
            if cell in known and known[cell]["chosen"] == tried:
                own = [self.settings.of_row(cell, known[cell])]
            else:
                own = tries.get(cell)
            if own is None:  # of what another variant was tuned over, only what was chosen there costs any timing
                own = self.settings.of_tries(cell, [tried], measure=cell in active)
            if own:
                chosen[cell] = own[choice if cell in tries else 0]
        final = [chosen[cell] for cell in active if cell in chosen]
        for setting in final:
            self.costs.of(setting.cell, setting.config, time=True)  # now, while no trial runs
        self._run("runs", self._trials(final, self.study.seeds, tested=True))
        rows = [
            {**self._row(setting), "tries": known[cell]["tries"] if cell in known else self._tries(tries.get(cell, []))}
            for cell, setting in chosen.items()
        ]
        rows = [row for row, cell in zip(rows, chosen, strict=True) if row["runs"] or cell in active]
        return {
            "study": self.study.name,
            "question": self.study.question,
            "definition": _plain_values(self.study),
            "environment": environment(pick_device(self.study.plain({}).device)),
            "earlier": self.earlier.environments if self.earlier is not None and known else [],
            "threads_of_a_run": self.threads,
            "failures": self.progress.failures,
            "pending": [cell.name for cell in active if cell not in chosen],
            **summarise(rows),
        }

    def _take_over(self) -> dict[Cell, dict[str, Any]]:
        """Rows of the earlier record by cell, where they still hold; their costs and runs are put into the cache."""
        rows: dict[Cell, dict[str, Any]] = {}
        for cell in self.cells:
            row = self.earlier.row(cell, self.study) if self.earlier is not None else None
            if row is None:
                continue
            setting = self.settings.of_row(cell, row)
            same = all(self.keys.run(setting.of_seed(run["seed"])) == run["key"] for run in row["runs"])
            if same and self.costs.keep(cell, setting.config, row["cost"]):
                restore(row, self.cache)
                rows[cell] = row
        return rows

    # Choices

    def _choose(self, settings: list[Setting]) -> int | None:
        """Which try has the best mean validation accuracy, the first of equals; None while some are missing."""
        means = [self._mean_validation(setting) for setting in settings]
        if not means or None in means:
            return None
        return max(range(len(means)), key=lambda index: means[index] or 0.0)

    def _validation(self, setting: Setting) -> dict[int, float] | None:
        """By seed of tuning; 0 for a run that diverged, None while one is missing."""
        results = {seed: self.cache.result(self.keys.run(setting.of_seed(seed))) for seed in self.study.tune.seeds}
        found = {seed: result.get("validation_accuracy", 0.0) for seed, result in results.items() if result is not None}
        return found if len(found) == len(results) else None

    def _mean_validation(self, setting: Setting) -> float | None:
        found = self._validation(setting)
        return None if found is None else fmean(found.values())

    # Trials

    def _trials(self, settings: list[Setting], seeds: Sequence[int], *, tested: bool) -> list[Trial]:
        """One for each result that is missing; cells that come to the same run share it."""
        plain = self.study.plain({})
        trials: dict[str, Trial] = {}
        by_cell: dict[Cell, list[Setting]] = {}
        for setting in settings:
            by_cell.setdefault(setting.cell, []).append(setting)
        for cell, seed in seed_major(list(by_cell), seeds):
            for setting in by_cell[cell]:
                config = setting.of_seed(seed)
                key = self.keys.run(config)
                if key in trials or not self.cache.missing([key], tested=tested, measures=self.study.measures):
                    continue
                cost = self.costs.of(cell, setting.config)
                tried = " ".join(f"{name}={value}" for name, value in setting.tried.items() if not tested)
                trials[key] = Trial(
                    key=key,
                    label=" ".join(part for part in (cell.name, tried, f"seed {seed}") if part),
                    config=config,
                    folder=self.cache.folder(key).absolute(),
                    data_dir=expanded(plain.data_dir).absolute(),
                    download=plain.download,
                    threads=self.threads,
                    tested=tested,
                    measures=self.study.measures,
                    work=(config.iterations or 1) * (cost.per_iteration if cost else 1.0),
                )
        return list(trials.values())

    def _run(self, what: str, trials: list[Trial]) -> None:
        if not trials or self.engine is None:
            return
        self.progress.begin(what, trials)
        self.engine(trials, self.progress)
        self.progress.end()

    # Results

    def _row(self, setting: Setting) -> dict[str, Any]:
        cell, config = setting.cell, setting.config
        cost = self.costs.of(cell, config)
        length = (config.iterations or math.nan) / self.settings.unit(cell)
        runs = []
        for seed in self.study.seeds:
            canonical_config = setting.of_seed(seed)
            key = self.keys.run(canonical_config)
            result = self.cache.result(key)
            if result is not None and ("evaluation" in result or "diverged" in result):
                measured = self.cache.measures(key, self.study.measures)
                runs.append({**_run_row(seed, key, canonical_config, result), "measures": measured})
        return {
            "variant": cell.variant,
            "method": config.method,
            "point": cell.point,
            "budget": cell.budget.name,
            "unit": cell.budget.unit,
            "scale": cell.budget.scale,
            "chosen": setting.tried,
            "iterations": config.iterations,
            "cost": None if cost is None else {"per_iteration": cost.per_iteration, "per_cycle": cost.per_cycle},
            "total_cost": None if cost is None else cost.per_iteration * length,
            "runs": runs,
        }

    def _tries(self, settings: list[Setting]) -> list[dict[str, Any]]:
        """What each try came to on validation data, over seeds, and against the first of them."""
        if not self.study.tuned:
            return []
        found = [self._validation(setting) for setting in settings]
        costs = [self.costs.of(setting.cell, setting.config) for setting in settings]
        return [
            {
                "values": setting.tried,
                "validation_accuracy": None if own is None else fmean(own.values()),
                "over_seeds": summary([] if own is None else list(own.values())),
                "minus_first": None if own is None or found[0] is None or not place else paired(own, found[0]),
                "cost": None if cost is None else cost.per_iteration,
            }
            for place, (setting, own, cost) in enumerate(zip(settings, found, costs, strict=True))
        ]


def _run_row(seed: int, key: str, config: TrainConfig, result: dict[str, Any]) -> dict[str, Any]:
    evaluation = result.get("evaluation", {})
    return {
        "seed": seed,
        "key": key,
        "recipe": config.model_dump(mode="json"),
        "diverged": result.get("diverged"),
        "validation_accuracy": result.get("validation_accuracy"),
        "trunk_updates": result.get("trunk_updates"),
        "train_seconds": result.get("train_seconds"),
        **{name: evaluation.get(name) for name in EVALUATED},
        **({"from_record": True} if result.get("from_record") else {}),
    }


def _plain_values(study: Study) -> dict[str, Any]:
    values = study.model_dump(mode="json")
    values["base"].pop("data_dir", None)  # a path of this machine
    return values
