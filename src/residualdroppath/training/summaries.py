"""What the folders of runs say of them: read only, and whatever state they are in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from ..errors import UserError
from ..records.files import is_locked, parse_json, read_json, reporting_damage
from .recipe import TrainConfig, read_config

OF_A_RUN = ("checkpoints", "metrics.jsonl", "result.json", "model.safetensors")
MOST_NAMED = 6
State = Literal["ended", "running", "stopped", "damaged"]
Accuracy = Annotated[float, Field(ge=0, le=1)]


@with_config(ConfigDict(extra="allow"))
class _Result(TypedDict, total=False):
    """What is shown of a result."""

    test_accuracy: Accuracy
    validation_accuracy: Accuracy


@with_config(ConfigDict(extra="allow"))
class _Row(TypedDict):
    """Likewise of an epoch."""

    epoch: int
    train_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    iteration: NotRequired[int]
    validation_accuracy: NotRequired[Accuracy]


@dataclass(frozen=True)
class RunSummary:
    """One run: its recipe, a row of numbers for each epoch, and its result once it has ended.

    `problem`: what of the folder could not be read.
    """

    path: Path
    state: State
    config: TrainConfig | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @property
    def last(self) -> float | None:
        """The validation accuracy of the final weights, which may be averaged or the best; before the end, the last."""
        validated = (row["validation_accuracy"] for row in reversed(self.epochs) if "validation_accuracy" in row)
        return self.result.get("validation_accuracy", next(validated, None))

    @property
    def best(self) -> tuple[float, int] | None:
        """The best validation accuracy and its epoch, the first such."""
        found = [(row["validation_accuracy"], row["epoch"]) for row in self.epochs if "validation_accuracy" in row]
        return max(found, key=lambda each: (each[0], -each[1]), default=None)

    @property
    def test(self) -> float | None:
        return self.result.get("test_accuracy")

    @property
    def epoch(self) -> int:
        """Whole ones."""
        return self.epochs[-1]["epoch"] if self.epochs else 0

    @property
    def seconds(self) -> float:
        """Of training alone."""
        return sum(row["train_seconds"] for row in self.epochs)

    def record(self) -> dict[str, Any]:
        """Plain values."""
        config = self.config
        best, epoch = self.best or (None, None)
        return {
            "path": str(self.path),
            "state": self.state,
            **{name: getattr(config, name, None) for name in ("method", "model", "data", "seed")},
            "epoch": self.epoch,
            "epochs": None if config is None or config.iterations is not None else config.epochs,
            "iterations": self.epochs[-1].get("iteration") if self.epochs else 0,
            "validation_accuracy": self.last,
            "best_validation_accuracy": best,
            "best_epoch": epoch,
            "test_accuracy": self.test,
            "train_seconds": self.seconds,
            "problem": self.problem,
        }


def is_run(folder: Path) -> bool:
    """Whether `rdp train` wrote it; a comparison has a recipe too. Checkpoints may have been removed."""
    return (folder / "config.yaml").is_file() and any((folder / name).exists() for name in OF_A_RUN)


def find_runs(folder: Path) -> list[Path]:
    """Folders of runs, `folder` itself or below it, in order of names. What is in a run is not looked through.

    A link to a run counts, unless the run is found without it; links to other folders are not followed.
    """
    found: list[Path] = []
    links: list[Path] = []
    for place, folders, _ in os.walk(folder, followlinks=False):
        if is_run(Path(place)):
            found.append(Path(place))
            folders.clear()
        links += [path for name in sorted(folders) if (path := Path(place, name)).is_symlink() and is_run(path)]
    known = {path.resolve(): path for path in (*reversed(links), *found)}
    return sorted(known.values())


def name_a_run(folder: Path) -> str:
    """The end of a message on a folder that is not that of a run: which are in it."""
    runs = sorted(str(path.parent) for depth in ("*", "*/*") for path in folder.glob(f"{depth}/config.yaml"))
    more = ", ..." if len(runs) > MOST_NAMED else ""
    return f"it holds the runs {', '.join(runs[:MOST_NAMED])}{more}: name one" if runs else ""


def summarise(path: Path) -> RunSummary:
    """Never raises `UserError`: a run that cannot be read is summed up as damaged."""
    state: State = "ended" if (path / "result.json").is_file() else "running" if is_locked(path) else "stopped"
    config = None
    try:
        config = read_config(TrainConfig, path / "config.yaml")
        epochs = _rows(path / "metrics.jsonl")
        result = read_json(path / "result.json", _Result) if state == "ended" else {}
        return RunSummary(path, state, config, epochs, result)
    except UserError as error:
        return RunSummary(path, "damaged", config, problem=str(error))


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with reporting_damage(path):
        return parse_json(f"[{','.join(path.read_text(encoding='utf-8').splitlines())}]", list[_Row])


def _recipe_key(run: RunSummary) -> tuple[str, ...]:
    config = run.config
    names = ("", "", "", "") if config is None else (config.data, config.model, config.method, f"{config.seed:09}")
    return (*names, str(run.path))


# Orders of runs by name; of accuracies and times the largest comes first, runs without any last.
ORDERS: dict[str, Callable[[RunSummary], Any]] = {
    "recipe": _recipe_key,
    "path": lambda run: str(run.path),
    "state": lambda run: (run.state, *_recipe_key(run)),
    "epoch": lambda run: (-run.epoch, *_recipe_key(run)),
    "validation": lambda run: (-(run.last or -1.0), *_recipe_key(run)),
    "test": lambda run: (-(run.test or -1.0), *_recipe_key(run)),
    "time": lambda run: (-run.seconds, *_recipe_key(run)),
}


def in_order(runs: Sequence[RunSummary], order: str) -> list[RunSummary]:
    return sorted(runs, key=ORDERS[order])


def differing_options(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """Options of which not all runs have the same value, with that of each run."""
    values = [run.config.model_dump(mode="json") if run.config else {} for run in runs]
    by_option = {name: [each.get(name) for each in values] for name in TrainConfig.model_fields}
    return {name: found for name, found in by_option.items() if any(value != found[0] for value in found)}
