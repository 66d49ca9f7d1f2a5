"""Pictures of studies: which there are, and what stands on their axes."""

from __future__ import annotations

import re
from typing import Any

from residualdroppath.experiments.studies.drawing import style_of
from residualdroppath.experiments.studies.figures import accuracy_over_cost, pictures, without_branches
from residualdroppath.experiments.studies.option_figures import Point, lines, tries_of_all
from residualdroppath.experiments.studies.table import elastic_head, elastic_rows, reuse_rows

Row = dict[str, Any]


def row(variant: str, cost: float, tries: list[tuple[Row, float]], method: str = "residual_drop_path") -> Row:
    mean = {"mean": 0.5, "low": 0.4, "high": 0.6}
    return {
        "variant": variant, "method": method, "point": {}, "chosen": {}, "budget": "cost", "total_cost": cost,
        "test_accuracy": mean, "runs": [{"test_accuracy": 0.4}, {"test_accuracy": 0.6}],
        "tries": [{"values": values, "validation_accuracy": accuracy} for values, accuracy in tries],
    }  # fmt: skip


def record(*rows: Row) -> Row:
    variants = {row["variant"]: {"changes": {"dropped_part_lr": 2}} for row in rows}
    return {"definition": {"base": {"lr": 0.3}, "grid": {}, "variants": variants}, "rows": list(rows)}


def colour_of(picture: str, name: str) -> str:
    """The colour of the marker of a legend's last line, or of one before."""
    return picture[: picture.index(f">{name}<")].rpartition("stroke: #")[2][:6]


def test_a_grid_of_which_nothing_has_ended_has_no_curves() -> None:
    waiting = {**row("a", 1.0, []), "point": {"lr": 0.1}, "runs": [], "test_accuracy": {"mean": None}}
    for grid in ({"lr": [0.1]}, {"lr": [0.1], "depth": [8]}, {"lr": [0.1], "depth": [8], "width": [2]}):
        found = pictures({"definition": {"base": {}, "grid": grid}, "rows": [waiting]})
        assert [picture.title for picture in found] == ["Accuracy against total cost"]


def test_a_cell_of_a_heat_map_may_be_missing() -> None:
    points: list[Row] = [{"lr": lr, "depth": depth} for lr in (0.1, 0.2) for depth in (8, 14)]
    rows = [{**row("a", 1.0, []), "point": point} for point in points]
    rows[1] |= {"runs": [], "test_accuracy": {"mean": None}}
    found = pictures({"definition": {"base": {}, "grid": {"lr": [0.1, 0.2], "depth": [8, 14]}}, "rows": rows})
    assert found[1].svg.count(">50.0<") == 3


def test_a_row_has_the_colour_of_its_own_variant_not_of_one_whose_name_begins_it() -> None:
    tries: list[tuple[Row, float]] = [({"lr": 0.1}, 0.5), ({"lr": 0.2}, 0.6)]
    rows = [{**row(name, 1.0, tries), "budget": budget} for name in ("a", "a, b") for budget in ("cost", "iterations")]
    svg = tries_of_all(record(*rows))[0].svg
    assert colour_of(svg, "a, equal cost") == colour_of(svg, "a, equal iterations")
    assert colour_of(svg, "a, b, equal cost") != colour_of(svg, "a, equal cost")


def elastic(branches: int, budget: str = "cost", **point: Any) -> Row:
    of_sizes = [{"mean": 0.3, "low": 0.2, "high": 0.4, "std": 0.1}] * (branches // 2)
    accuracy = {"mean": 0.5, "low": 0.4, "high": 0.6, "std": 0.1}
    depth = {
        "branches": branches,
        "test_images": 100,
        "half_minus_plain": {},
        "whole": accuracy,
        **dict.fromkeys(("chosen", "random", "worst"), of_sizes),
    }
    own = {"budget": budget, "point": point, "elastic_depth": depth, "test_accuracy": accuracy}
    return {**row("a", 1.0, []), **own, "feature_reuse": {"reuse": {"mean": 0.5}}}


def test_budgets_and_points_stand_apart_where_branches_are_taken_out() -> None:
    rows = [elastic(4, "cost", lr=1), elastic(4, "iterations", lr=1), elastic(6, "cost", lr=2)]
    names = ["a, equal cost, lr 1", "a, equal iterations, lr 1", "a, equal cost, lr 2"]
    whole = {**record(*rows), "reuse_and_accuracy": {"reuse": {"rho": None}}}
    assert all(f">{name}<" in picture.svg for picture in without_branches(whole) for name in names)
    assert [cells[0] for cells in elastic_rows(whole)] == names == [cells[0] for cells in reuse_rows(whole)[:-1]]
    assert elastic_head(whole)[2] == "without 2 of 4, 3 of 6, chosen (%); minus plain"


def test_of_one_branch_none_is_half() -> None:
    assert elastic_rows(record(elastic(1))) == [["a", "50.00 ± 10.00", "-", "-", "-"]]
    assert len(without_branches(record(elastic(1)))) == 3


def test_variants_at_one_cost_stand_side_by_side() -> None:
    at_one_cost = accuracy_over_cost(record(row("a", 1.0, []), row("b", 1.02, [])))
    assert "each at a total cost of 1.01 of plain training" in at_one_cost.svg
    apart = accuracy_over_cost(record(row("a", 1.0, []), row("b", 0.7, [])))
    assert "total cost (plain training = 1)" in apart.svg and "total cost (plain" not in at_one_cost.svg


def test_many_variants_have_their_names_beside_the_axes_or_below() -> None:
    names = [f"variant {number}" for number in range(12)]
    rows = [{**row(name, 1.0, []), "elastic_depth": {}} for name in names]
    for each in rows:
        sizes = dict.fromkeys(("chosen", "random", "worst"), [each["test_accuracy"]] * 2)
        each["elastic_depth"] = {"whole": each["test_accuracy"], **sizes}
    drawings = [accuracy_over_cost(record(*rows)), *without_branches(record(*rows))]
    heights = []
    for picture in drawings:
        assert all(picture.svg.count(f">{name}<") == 1 for name in names)
        heights.append(float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', picture.svg)[1]))  # pyright: ignore
    few = [accuracy_over_cost(record(*rows[:3])), *without_branches(record(*rows[:3]))]
    assert all(height > float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', picture.svg)[1])  # pyright: ignore
               for height, picture in zip(heights, few, strict=True))  # fmt: skip
    styles = {style_of(record(*rows), name) for name in names}
    assert len(styles) == 12  # a colour that comes again is dashed


def test_curves_join_tries_that_differ_in_nothing_else() -> None:
    tries: list[tuple[Row, float]] = [
        ({"drop_path_rate": 0.1, "weight_decay": 0.1}, 0.5),
        ({"drop_path_rate": 0.2, "weight_decay": 0.1}, 0.6),
        ({"drop_path_rate": 0.2, "weight_decay": 0.1, "rate_over_depth": "uniform"}, 0.4),
        ({"drop_path_rate": 0.2, "weight_decay": 0.1, "dropped_part_lr": 1}, 0.7),
        ({"drop_path_rate": 0.3, "weight_decay": 0.1, "frozen_norm": "batch"}, 0.9),  # differs in two
    ]
    plain: list[tuple[Row, float]] = [({"lr": 0.1, "weight_decay": 0.1}, 0.5)]
    made = record(row("plain", 1.0, plain, "plain"), row("a", 1.0, tries), row("b, c", 1.0, tries))
    assert [picture.title for picture in tries_of_all(made)] == [
        "plain: validation accuracy (%) over lr and weight decay, of the tries",
        *(f"Validation accuracy over {option}, all else equal, of the tries" for option in (
            "drop path rate", "rate over depth", "dropped part lr")),
    ]  # fmt: skip
    for picture in tries_of_all(made)[1:]:
        assert picture.svg.count(">a<") == 1 and picture.svg.count(">b, c<") == 1
    points = [Point({"x": 1, "y": 1}, 0.1), Point({"x": 2, "y": 1}, 0.2), Point({"x": 2, "y": 2}, 0.3)]
    assert lines({"v": points}, "x") == {"v": [points[:2]]} and lines({"v": points[:1]}, "x") == {}
    rate_over_depth, other_rate = tries_of_all(made)[2:]
    assert ">linear<" in rate_over_depth.svg and ">uniform<" in rate_over_depth.svg  # the default, where not named
    assert other_rate.svg.count(">2<") == 1  # that of the variant


def test_names_of_variants_and_values_are_no_formulas() -> None:
    odd = r"a$\foo$"
    tries: list[tuple[Row, float]] = [({"optimizer": odd}, 0.5), ({"optimizer": "sgd"}, 0.6)]
    assert odd in accuracy_over_cost(record(row(odd, 1.0, [])).copy()).svg
    assert [picture.svg.count(odd) for picture in tries_of_all(record(row(odd, 1.0, tries)))] == [2]
    two: list[tuple[Row, float]] = [({"optimizer": odd, "data": odd}, 0.5), ({"optimizer": "sgd", "data": "b"}, 0.6)]
    assert [picture.svg.count(odd) for picture in tries_of_all(record(row(odd, 1.0, two)))] == [2]
