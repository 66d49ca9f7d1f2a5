"""What `rdp compare` runs: methods and seeds, and for how long each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ...training.longer import changed, depends_on_length
from ...training.recipe import Method, Recipe, TrainConfig

if TYPE_CHECKING:
    from .cost import Cost

Equal = Literal["iterations", "cost"]


class CompareConfig(Recipe):
    """A recipe, and the methods and seeds to run it with."""

    methods: tuple[Method, ...] = Field(
        default=("plain", "drop_path", "residual_drop_path"), description="methods to compare"
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0, 1, 2), description="a run of each method for each seed"
    )
    equal: Literal["iterations", "cost", "both"] = Field(
        default="iterations", description="all methods get plain's iterations, or as many as cost what plain's cost"
    )

    @model_validator(mode="after")
    def _check_runs(self) -> CompareConfig:
        for name in ("methods", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"`{name}` must be a list of different values, got {values}")
        for name in ("iterations", "cycle", "test"):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` must keep its default in a comparison, got {value}; `rdp study` varies it")
        return self

    def run(self, method: Method, seed: int, epochs: int) -> TrainConfig:
        """The recipe of one run."""
        recipe = {name: getattr(self, name) for name in Recipe.model_fields}
        return TrainConfig(**{**recipe, "method": method, "seed": seed, "epochs": epochs})


def differences(stored: CompareConfig, config: CompareConfig) -> list[str]:
    """Why `config` cannot go on with a comparison of `stored`; empty if it can, with more seeds or epochs too."""
    found = changed(stored, config)
    if set(stored.seeds) <= set(config.seeds):
        found.pop("seeds", None)
    if config.epochs > stored.epochs:
        runs = (config.run(method, 0, config.epochs) for method in config.methods)
        reasons = dict.fromkeys(reason for run in runs for reason in depends_on_length(run))
        if reasons:
            found["epochs"] += f", and runs cannot be made longer: they go by {', '.join(reasons)}"
        else:
            del found["epochs"]
    return list(found.values())


def goes_on(recorded: Any, config: CompareConfig) -> bool:
    """Whether `config` goes on with the comparison of which a record holds the configuration."""
    try:
        return not differences(CompareConfig.model_validate(recorded), config)
    except ValidationError:
        return False


@dataclass(frozen=True)
class Row:
    """One line of the table: a method for a number of epochs, over all seeds."""

    method: Method
    equal: Equal
    epochs: int

    @property
    def name(self) -> str:
        return self.method if self.equal == "iterations" else f"{self.method}-equal-cost"


def plan_rows(config: CompareConfig, costs: dict[Method, Cost]) -> list[Row]:
    """The rows to run. At equal cost a method gets epochs / (its cost per iteration) epochs."""
    rows = []
    for equal in ("iterations", "cost"):
        if config.equal not in (equal, "both"):
            continue
        for method in config.methods:
            if equal == "cost" and method == "plain" and config.equal == "both":
                continue  # the same as at equal iterations
            ratio = 1.0 if method == "plain" or equal == "iterations" else costs[method].per_iteration
            rows.append(Row(method, equal, max(1, round(config.epochs / ratio))))
    return rows
