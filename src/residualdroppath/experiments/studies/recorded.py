"""Records of studies: what is read of them, checked, and one shown again without its runs or data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from ...errors import UserError
from ...records.files import read_json
from .definition import Values
from .summary import summarise

Row = dict[str, Any]


@with_config(ConfigDict(extra="allow"))
class _ElasticDepth(TypedDict):
    branches: int
    test_images: int
    whole: float
    chosen: list[float]
    random: list[float]
    worst: list[float]


class _Measures(TypedDict, total=False):
    elastic_depth: _ElasticDepth
    feature_reuse: dict[str, float]


@with_config(ConfigDict(extra="allow"))
class _Run(TypedDict):
    seed: int
    key: str
    recipe: Row
    diverged: str | None
    measures: _Measures
    validation_accuracy: float | None
    trunk_updates: int | None
    train_seconds: float | None
    test_accuracy: float | None
    test_loss: float | None
    train_accuracy: float | None
    train_loss: float | None


@with_config(ConfigDict(extra="allow"))
class _Try(TypedDict):
    values: Values
    validation_accuracy: float | None
    cost: NotRequired[float | None]


class _Cost(TypedDict):
    per_iteration: float
    per_cycle: float


@with_config(ConfigDict(extra="allow"))
class _Row(TypedDict):
    variant: str
    method: str
    budget: str
    unit: str
    scale: float
    point: Values
    chosen: Values
    tries: list[_Try]
    iterations: int | None
    cost: _Cost | None
    total_cost: float | None
    runs: list[_Run]


@with_config(ConfigDict(extra="allow"))
class _Tune(TypedDict):
    seeds: list[int]


@with_config(ConfigDict(extra="allow"))
class _Variant(TypedDict):
    changes: Values


@with_config(ConfigDict(extra="allow"))
class _Definition(TypedDict):
    base: Values
    grid: dict[str, list[Any]]
    seeds: list[int]
    tune: _Tune
    variants: dict[str, _Variant]


@with_config(ConfigDict(extra="allow"))
class _Record(TypedDict):
    study: str
    question: str
    file: str
    seeds: NotRequired[int]
    definition: _Definition
    environment: Row
    threads_of_a_run: int
    failures: dict[str, str]
    pending: list[str]
    rows: list[_Row]


def read_record(path: Path) -> Row:
    """Raises `UserError` for a file that is no record of a study."""
    if not path.is_file():
        raise UserError(f"{path} is no file; name a record that `rdp study --record` has written.")
    read_json(path, _Record)  # in which keys would not keep their order
    return read_json(path)


def shown_record(path: Path) -> Row:
    """A record whose figures over seeds are made anew from its runs, as today's pages have them."""
    record = read_record(path)
    return {**record, **summarise(record["rows"])}
