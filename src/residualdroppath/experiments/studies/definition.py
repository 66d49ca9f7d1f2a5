"""What a study file holds: a question, a base recipe, budgets, seeds, and variants with what they may be tuned over."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ...errors import UserError
from ...records.bounds import Bounded
from ...records.configuration import read_yaml
from ...training.recipe import TrainConfig, checked

Unit = Literal["iterations", "trunk_updates", "cost"]
Measure = Literal["elastic_depth", "feature_reuse"]
Seeds = tuple[Annotated[int, Field(ge=0)], ...]
# What a study decides by itself: fields of a recipe that neither base nor variants may set.
OF_THE_STUDY = ("seed", "test")
# What all runs of a study have alike: where data lie, and how fast it goes. Elsewhere than in the base they would be
# passed over.
OF_THE_BASE = ("data_dir", "download", "threads")
MOST_SEEDS = 10_000
LARGEST_SCALE = 1000  # of a budget
Values = dict[str, Any]


class Budget(NamedTuple):
    """What all variants have alike: `scale` times the iterations, trunk updates or measured cost of plain training."""

    unit: Unit
    scale: float

    @property
    def name(self) -> str:
        return self.unit if self.scale == 1 else f"{self.unit} x{self.scale:g}"


class Tune(Bounded):
    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: Seeds = (1000, 1001, 1002)

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: Seeds) -> Seeds:
        return require_different(seeds, "a list of different seeds")


class Variant(BaseModel):
    """One line of the table: changes to the base recipe, and what they may be tuned over.

    `grid` (values by option, all combinations) or `tries` (a list of changes) are what is tuned over. `like` takes
    over what another variant has, its chosen try included, in place of tries of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    changes: Values
    tries: tuple[Values, ...] = ()
    like: str | None = None
    budgets: tuple[Budget, ...] | None = None


class Study(Bounded):
    """A study, whole and checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    question: str = Field(min_length=1)
    base: Values = {}
    budgets: tuple[Budget, ...] = Field(alias="budget", default=(Budget("iterations", 1.0),))
    seeds: Seeds = (0, 1, 2, 3, 4)
    grid: dict[str, list[Any]] = {}
    tune: Tune = Tune()
    measures: tuple[Measure, ...] = ()  # of each network that is tested
    variants: dict[str, Variant]

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, seeds: Any) -> Any:
        if type(seeds) is int and seeds > MOST_SEEDS:
            raise ValueError(f"must be at most {MOST_SEEDS:,} seeds")
        return tuple(range(seeds)) if type(seeds) is int else seeds

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: Seeds) -> Seeds:
        return require_different(seeds, "a count above 0, or a list of different seeds")

    @field_validator("measures")
    @classmethod
    def _once(cls, measures: tuple[Measure, ...]) -> tuple[Measure, ...]:
        return tuple(dict.fromkeys(measures))

    @field_validator("budgets", mode="before")
    @classmethod
    def _budgets(cls, budgets: Any) -> tuple[Budget, ...]:
        return read_budgets(budgets)

    @field_validator("variants", mode="before")
    @classmethod
    def _variants(cls, variants: Any) -> dict[str, Variant]:
        if not isinstance(variants, dict) or not variants:
            raise ValueError("must be `name: changes of the recipe` lines")
        for name in variants:
            require_name(str(name))
        if len({str(name) for name in variants}) < len(variants):
            raise ValueError("must have different names, also written as text; quote or change one of them")
        return {str(name): read_variant(str(name), values) for name, values in variants.items()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, variant in self.variants.items():
            other = None if variant.like is None else self.variants.get(variant.like)
            if variant.like is not None and (other is None or other.like is not None):
                allowed = [each for each, found in self.variants.items() if found.like is None and each != name]
                raise ValueError(f"`like` of variant {name} must be one of {', '.join(allowed)}, got {variant.like!r}")
        counts = {name: len(variant.tries) for name, variant in self.variants.items() if variant.like is None}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise ValueError(
                f"every variant must have the same number of tries, but {listed}; change `grid` or `tries`, or let a "
                "variant follow another (`like: NAME`)"
            )
        if self.tuned and (both := sorted({*self.seeds} & {*self.tune.seeds})):
            raise ValueError(
                "`tune.seeds` must be other ones than `seeds`, as runs that tries were chosen by are not tested, got "
                f"{both[0]} in both; change one of them"
            )
        for name in self.grid:
            if not self.grid[name]:
                raise ValueError(f"`grid` has no value for {name}")
            for variant, own in self.variants.items():
                if any(name in changes for changes in (own.changes, *own.tries)):
                    raise ValueError(
                        f"`grid` varies `{name}`, which variant {variant} sets itself; leave it out of one of them"
                    )
        for changes in (self.base, *self.points):
            require_options(changes, "base or grid")
        require_none_of_the_base(self.grid, "grid")
        for point in self.points:
            for name in self.variants:
                for tried in self.tries_of(name):
                    self.config(point, name, tried)
        return self

    @property
    def tuned(self) -> bool:
        return any(variant.tries for variant in self.variants.values())

    @property
    def points(self) -> list[Values]:
        """Points of the grid that every variant is run at; one, empty, without a grid."""
        return combinations(self.grid)

    def budgets_of(self, name: str) -> tuple[Budget, ...]:
        return self.variants[name].budgets or self.budgets

    def tries_of(self, name: str) -> tuple[Values, ...]:
        """The changes that a variant, or the one that it is like, is tuned over; one, empty, where there are none."""
        variant = self.variants[name]
        return self.variants[variant.like or name].tries or ({},)

    def config(self, point: Values, name: str, tried: Values) -> TrainConfig:
        """The recipe of a variant at a point of the grid. Raises `UserError` for what no recipe can hold."""
        variant = self.variants[name]
        tuned = self.variants[variant.like or name].changes
        own = variant.changes if variant.like else {}  # over what was chosen for the other
        changes = {**self.base, **point, **tuned, **tried, **own}
        return checked(lambda: TrainConfig.model_validate(changes), f"variant {name} of study {self.name}")

    def plain(self, point: Values) -> TrainConfig:
        """The training that budgets are counted in."""
        values = {**self.base, **point, "method": "plain"}
        return checked(lambda: TrainConfig.model_validate(values), f"the base of study {self.name}")


def read_study(path: Path, **changes: Any) -> Study:
    """A study from its file; `changes` replace values of the file, those of `base` one by one."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"The study {path} must hold `name`, `question`, `base`, `variants` (docs/studies.md).")
    base = values.get("base") or {}
    if not isinstance(base, dict):
        raise UserError(f"`base` of the study {path} must hold `option: value` lines, got {base!r}.")
    base = {**base, **changes.pop("base", {})}
    return checked(lambda: Study.model_validate({**values, "base": base, **changes}), str(path))


def read_budgets(value: Any) -> tuple[Budget, ...]:
    """`cost`, a list of such names, or `{cost: 0.7}` with a scale or a list of scales."""
    allowed = get_args(Unit)
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        value = {name if isinstance(name, str) else str(name): 1.0 for name in value}
    if not isinstance(value, dict) or not value or not value.keys() <= set(allowed):
        raise ValueError(f"must be one or more of {', '.join(allowed)}, each with a scale if it is not 1")
    scales = {unit: scale if isinstance(scale, list) else [scale] for unit, scale in value.items()}
    if empty := [unit for unit, own in scales.items() if not own]:
        raise ValueError(f"{empty[0]} must have a scale or a list of scales, such as `{empty[0]}: 0.7`")
    for scale in itertools.chain(*scales.values()):
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= LARGEST_SCALE:
            raise ValueError(
                f"the scale of a budget must be a number above 0, at most {LARGEST_SCALE:,}, got {scale!r}"
            )
    return tuple(Budget(unit, float(scale)) for unit, own in scales.items() for scale in own)


def read_variant(name: str, values: Any) -> Variant:
    if not isinstance(values, dict):
        raise ValueError(f"variant {name} must hold `option: value` lines, got {values!r}")
    changes = dict(values)
    grid, tries = changes.pop("grid", None), changes.pop("tries", None)
    like, budget = changes.pop("like", None), changes.pop("budget", None)
    if (grid is not None) + (tries is not None) + (like is not None) > 1:
        raise ValueError(f"variant {name} may have one of `grid`, `tries` and `like`")
    if grid is not None and not (
        isinstance(grid, dict) and all(isinstance(own, list) and own for own in grid.values())
    ):
        raise ValueError(f"`grid` of variant {name} must hold a list of values by option, got {grid!r}")
    if tries is not None and not (isinstance(tries, list) and all(isinstance(own, dict) for own in tries)):
        raise ValueError(f"`tries` of variant {name} must be a list of changes, got {tries!r}")
    tries = combinations(grid) if grid else tries or []
    for own in (changes, *tries):
        require_options(own, f"variant {name}")
        require_none_of_the_base(own, f"variant {name}")
    return Variant(
        changes=changes,
        tries=tuple(tries),
        like=None if like is None else str(like),  # a name may be a number
        budgets=None if budget is None else read_budgets(budget),
    )


def combinations(grid: Mapping[str, list[Any]]) -> list[Values]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def require_name(name: str) -> None:
    """One that a line of a table shows, and `--only` takes."""
    if not name.strip() or name.startswith("-") or not name.isprintable():
        raise ValueError(f"a variant's name must be a line of text that does not begin with -, got {name!r}")


def require_different(seeds: Seeds, what: str) -> Seeds:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"must be {what}")
    return seeds


def require_none_of_the_base(changes: Values, where: str) -> None:
    for name in OF_THE_BASE:
        if name in changes:
            raise ValueError(f"`{name}` is the same for all runs of a study; set it in `base` in place of {where}")


def require_options(changes: Values, where: str) -> None:
    for name in changes:
        if name in OF_THE_STUDY:
            raise ValueError(f"`{name}` is set by the study itself; remove it from {where}")
        if name not in TrainConfig.model_fields:
            raise ValueError(f"`{name}` of {where} is not an option of `rdp train`")
