"""Failures by name, from rows made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from residualdroppath.experiments.studies.statistics import summary
from residualdroppath.experiments.studies.summary import reference, summarise


def row(method: str, test: list[float], *, train: float = 1.0, updates: int = 100, **changes: Any) -> dict[str, Any]:
    runs = [
        {
            "seed": seed, "test_accuracy": value, "validation_accuracy": value, "train_accuracy": train,
            "test_loss": 1.0, "trunk_updates": updates, "diverged": None,
        }
        for seed, value in enumerate(test)
    ]  # fmt: skip
    place = {"point": {}, "budget": "cost", "unit": "cost", "scale": 1.0}
    return {"variant": method, "method": method, "runs": runs, **place, **changes}


PLAIN = [0.60, 0.61, 0.62, 0.63, 0.64]


def shown(ours: dict[str, Any], drop_path: list[float] = PLAIN) -> list[str]:
    rows = [row("plain", PLAIN[: len(ours["runs"])]), row("drop_path", drop_path[: len(ours["runs"])]), ours]
    return summarise(rows)["rows"][2]["signatures"]


def plus(*gains: float) -> list[float]:
    return [value + gain for value, gain in zip(PLAIN, gains, strict=True)]


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        (row("residual_drop_path", plus(0.05, 0.05, 0.051, 0.05, 0.05)), []),
        (row("residual_drop_path", plus(0.001, -0.001, 0.001, -0.002, 0)), ["no gain over drop path"]),
        (row("residual_drop_path", plus(-0.05, -0.05, -0.05, -0.05, -0.051)), ["below drop path"]),
        (
            row("residual_drop_path", plus(0.1, -0.09, 0.1, -0.09, 0.1)),
            ["no gain over drop path", "spread larger than the gain"],
        ),
        (
            row("residual_drop_path", plus(0.05, 0.05, 0.051, 0.05, 0.05), train=0.9, updates=50),
            ["the trunk underfits: its updates are too few"],
        ),
        (row("residual_drop_path", plus(0.05, 0.05, 0.051, 0.05, 0.05), train=0.9, updates=99), []),
        (row("residual_drop_path", plus(0.05, 0.05, 0.051, 0.05, 0.05), train=0.99, updates=50), []),
        (row("residual_drop_path", plus(0.05, 0.05, 0.051, 0.05, 0.05)[:4]), ["pilot"]),
    ],
)
def test_signatures(ours: dict[str, Any], expected: list[str]) -> None:
    assert shown(ours) == expected


def test_an_interval_below_drop_path_may_be_the_chance_of_many_comparisons() -> None:
    ours = row("residual_drop_path", plus(-0.001, -0.02, -0.015, -0.003, -0.012))
    alone = summarise([row("drop_path", PLAIN), ours])["rows"][1]
    assert alone["against"]["drop_path"]["high"] < 0 and alone["signatures"] == ["below drop path"]
    others = [{**row("drop_path", plus(0.1, -0.1, 0.1, -0.1, 0)), "variant": name} for name in "abc"]
    among = summarise([row("drop_path", PLAIN), *others, ours])["rows"][4]
    assert among["against"]["drop_path"]["high"] < 0 and among["signatures"] == ["no gain over drop path"]


def test_further_drop_path_may_be_below_the_first_and_promises_nothing() -> None:
    further = [row("drop_path", plus(*gains)) for gains in ([-0.05, -0.05, -0.05, -0.05, -0.051], [0, 0.1, -0.1, 0, 0])]
    rows = summarise([row("drop_path", PLAIN), *further])["rows"]
    assert [each["signatures"] for each in rows] == [[], ["below drop path"], []]


def test_one_pair_below_drop_path_has_no_interval_that_lies_below() -> None:
    assert shown(row("residual_drop_path", [0.55])) == ["no gain over drop path", "pilot"]


def test_updates_of_the_trunk_are_the_mean_over_runs() -> None:
    ours = row("residual_drop_path", PLAIN)
    for run, updates in zip(ours["runs"], (100, 100, 100, 100, 50), strict=True):
        run["trunk_updates"] = updates
    assert summarise([ours])["rows"][0]["trunk_updates"] == 90


def test_diverged_runs_are_counted() -> None:
    ours = row("residual_drop_path", plus(0.05, 0.05, 0.051, 0.05, 0.05))
    ours["runs"][0].update(diverged="no longer finite", test_accuracy=None)
    assert shown(ours) == ["diverged: 1 of 5", "pilot"]


def test_comparisons_are_those_with_plain_and_drop_path_corrected_together() -> None:
    rows = [row("plain", PLAIN), row("drop_path", plus(0.01, 0.02, 0.01, 0.02, 0.03)), row("residual_drop_path", PLAIN)]
    found = summarise(rows)
    against = [each["against"] for each in found["rows"]]
    assert found["comparisons"] == 3
    assert [list(each) for each in against] == [[], ["plain"], ["plain", "drop_path"]]
    smallest = min(comparison["p"] for each in against for comparison in each.values())
    assert against[1]["plain"]["p_holm"] == pytest.approx(3 * smallest)
    assert against[2]["plain"]["p_holm"] == 1.0


def test_reference_of_a_part_of_the_budget_is_the_whole() -> None:
    whole, part = row("plain", PLAIN), row("plain", PLAIN, scale=0.7)
    ours = row("residual_drop_path", PLAIN, scale=0.7)
    assert reference([whole, part, ours], ours, "plain") is part
    assert reference([whole, ours], ours, "plain") is whole
    elsewhere = row("plain", PLAIN, point={"train_size": 5})
    assert reference([elsewhere, ours], ours, "plain") is None
    iterations = row("plain", PLAIN, unit="iterations")
    assert reference([iterations, ours], ours, "plain") is iterations
    assert reference([row("drop_path", PLAIN, unit="iterations"), ours], ours, "drop_path") is None


def test_summary_leaves_out_runs_without_a_figure() -> None:
    ours = row("plain", PLAIN)
    ours["runs"][1]["test_accuracy"] = None
    assert summarise([ours])["rows"][0]["test_accuracy"] == summary([PLAIN[0], *PLAIN[2:]])
