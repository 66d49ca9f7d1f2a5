"""Which rows a comparison runs, for how long, and how its table looks."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from residualdroppath.experiments.compare.config import CompareConfig, Row, plan_rows
from residualdroppath.experiments.compare.cost import Cost
from residualdroppath.experiments.compare.table import HEAD, table_rows, terminal_table
from residualdroppath.training.recipe import Method

COSTS: dict[Method, Cost] = {
    "plain": Cost(1.0, 1.0, 48),
    "drop_path": Cost(0.8, 0.8, 48),
    "residual_drop_path": Cost(0.7, 1.4, 48),
}


def planned(**options: Any) -> list[tuple[str, int]]:
    return [(row.name, row.epochs) for row in plan_rows(CompareConfig(**{"epochs": 20, **options}), COSTS)]


def test_equal_iterations_are_equal_epochs() -> None:
    assert planned() == [("plain", 20), ("drop_path", 20), ("residual_drop_path", 20)]


def test_equal_cost_gives_cheaper_methods_more_epochs() -> None:
    assert planned(equal="cost") == [
        ("plain-equal-cost", 20),
        ("drop_path-equal-cost", 25),
        ("residual_drop_path-equal-cost", 29),
    ]


def test_both_runs_plain_once() -> None:
    assert planned(equal="both") == [
        ("plain", 20),
        ("drop_path", 20),
        ("residual_drop_path", 20),
        ("drop_path-equal-cost", 25),
        ("residual_drop_path-equal-cost", 29),
    ]


def test_methods_asked_for_in_their_order() -> None:
    assert planned(methods=("residual_drop_path", "plain"), equal="both") == [
        ("residual_drop_path", 20),
        ("plain", 20),
        ("residual_drop_path-equal-cost", 29),
    ]


def test_a_costly_method_still_gets_an_epoch() -> None:
    costs: dict[Method, Cost] = {"drop_path": Cost(3.0, 3.0, 1)}
    config = CompareConfig(epochs=1, methods=("drop_path",), equal="cost")
    assert plan_rows(config, costs) == [Row("drop_path", "cost", 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"seeds": (0, 1, 0)},
        {"seeds": ()},
        {"seeds": (-1,)},
        {"methods": ()},
        {"methods": ("plain", "plain")},
        {"methods": ("best",)},
        {"equal": "nothing"},
    ],
)
def test_what_cannot_be_compared(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        CompareConfig(**wrong)


def test_table_of_figures() -> None:
    row = {
        "name": "residual_drop_path-equal-cost",
        "epochs": 29,
        "test_accuracy": {"mean": 0.91234, "std": 0.0123},
        "validation_accuracy": {"mean": 0.9, "std": None},
        "cost": {"per_iteration": 0.701, "per_cycle": 1.402},
        "total_cost": 1.016,
    }
    cells = table_rows({"rows": [row]})[0]
    assert len(cells) == len(HEAD)
    assert cells == ["residual_drop_path equal cost", "91.23 ± 1.23", "90.00", "29", "0.70", "1.40", "1.02"]


def test_table_is_whole_in_80_columns() -> None:
    accuracy = {"mean": 0.91234, "std": 0.01234}
    row = {
        "epochs": 1000,
        "test_accuracy": accuracy,
        "validation_accuracy": accuracy,
        "cost": {"per_iteration": 0.7, "per_cycle": 1.4},
        "total_cost": 1.0,
    }
    names = ["plain", "drop_path", "residual_drop_path", "residual_drop_path-equal-cost"]
    config = {"data": "digits", "model": "small_resnet", "depth": 20, "width": 16, "seeds": [0, 1, 2]}
    console = Console(width=80, file=io.StringIO())
    console.print(terminal_table({"config": config, "rows": [{"name": name, **row} for name in names]}))
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    lines = text.splitlines()
    assert "…" not in text and max(map(len, lines)) <= 80
    for name in names[:3]:
        words = [name, "91.23", "±", "1.23", "91.23", "±", "1.23", "1000", "0.70", "1.40", "1.00"]
        assert words in [line.split() for line in lines]
