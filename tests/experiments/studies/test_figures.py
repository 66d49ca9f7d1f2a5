"""Pictures of studies: which there are, and what stands on their axes."""

from __future__ import annotations

from typing import Any

from residualdroppath.experiments.studies.figures import accuracy_over_cost, tries_of_all

Row = dict[str, Any]


def row(variant: str, cost: float, tries: list[tuple[Row, float]], method: str = "residual_drop_path") -> Row:
    mean = {"mean": 0.5, "low": 0.4, "high": 0.6}
    return {
        "variant": variant, "method": method, "point": {}, "chosen": {}, "budget": "cost", "total_cost": cost,
        "test_accuracy": mean, "runs": [{"test_accuracy": 0.4}, {"test_accuracy": 0.6}],
        "tries": [{"values": values, "validation_accuracy": accuracy} for values, accuracy in tries],
    }  # fmt: skip


def record(*rows: Row) -> Row:
    return {"definition": {"base": {"lr": 0.3}, "grid": {}}, "rows": list(rows)}


def test_variants_at_one_cost_stand_side_by_side() -> None:
    at_one_cost = accuracy_over_cost(record(row("a", 1.0, []), row("b", 1.02, [])))
    assert "each at a total cost of 1.01 of plain training" in at_one_cost.svg
    apart = accuracy_over_cost(record(row("a", 1.0, []), row("b", 0.7, [])))
    assert "total cost (plain training = 1)" in apart.svg and "total cost (plain" not in at_one_cost.svg


def test_variants_that_were_tuned_over_the_same_share_a_picture() -> None:
    tries: list[tuple[Row, float]] = [
        ({"drop_path_rate": 0.1, "weight_decay": 0.1, "rate_over_depth": "uniform"}, 0.5),
        ({"drop_path_rate": 0.2, "weight_decay": 0.1}, 0.6),
    ]
    plain: list[tuple[Row, float]] = [({"lr": 0.1, "weight_decay": 0.1}, 0.5)]
    found = tries_of_all(record(row("plain", 1.0, plain, "plain"), row("a", 1.0, tries), row("b, c", 1.0, tries)))
    assert [picture.title.partition(",")[0] for picture in found] == [
        "plain: validation accuracy (%) over lr and weight decay",
        *(f"Validation accuracy over {option} (best over the other options)" for option in (
            "drop path rate", "weight decay", "rate over depth")),
    ]  # fmt: skip
    for picture in found[1:]:
        assert ">a<" in picture.svg and ">b, c<" in picture.svg
    assert ">linear<" in found[-1].svg and ">uniform<" in found[-1].svg  # what a try does not name has its default


def test_names_of_variants_and_values_are_no_formulas() -> None:
    odd = r"a$\foo$"
    tries: list[tuple[Row, float]] = [({"optimizer": odd}, 0.5), ({"optimizer": "sgd"}, 0.6)]
    assert odd in accuracy_over_cost(record(row(odd, 1.0, [])).copy()).svg
    assert [picture.svg.count(odd) for picture in tries_of_all(record(row(odd, 1.0, tries)))] == [2]
    two: list[tuple[Row, float]] = [({"optimizer": odd, "data": odd}, 0.5), ({"optimizer": "sgd", "data": "b"}, 0.6)]
    assert [picture.svg.count(odd) for picture in tries_of_all(record(row(odd, 1.0, two)))] == [2]
