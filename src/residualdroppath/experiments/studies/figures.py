"""Pictures of a study: accuracy against total cost, over what was varied, and with branches taken out."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from ...reporting.axes import drawn
from .drawing import SIZE, Picture, Row, as_svg, finish, variant_colours
from .elastic_depth import SELECTIONS
from .option_figures import Point, curves, grids, tries_of_all
from .table import row_name, several_budgets

ALIKE = 0.05  # costs that are equal but for rounding to whole iterations
LINE = 0.3  # inches for a row of the table
TAKEN_OUT = {
    "chosen": "those that cost least on validation data, one by one",
    "random": "random ones",
    "worst": "those that cost most on validation data, one by one",
}


def pictures(record: Row) -> list[Picture]:
    return [accuracy_over_cost(record), *grids(record), *tries_of_all(record), *without_branches(record)]


def without_branches(record: Row) -> list[Picture]:
    """Accuracy over the number of branches that are taken out, by how they are picked; none if it was not measured."""
    rows = [row for row in record["rows"] if "elastic_depth" in row]
    several = several_budgets(record["rows"])
    return [
        Picture(
            f"Without branches: {TAKEN_OUT[how]}",
            curves(
                record,
                "branches taken out",
                {
                    row_name(row, budgets=several, chosen=False): [
                        [
                            Point({"branches taken out": size}, value["mean"], value["low"], value["high"])
                            for size, value in enumerate([row["elastic_depth"]["whole"], *row["elastic_depth"][how]])
                        ]
                    ]
                    for row in rows
                },
                "test accuracy (%)",
            ),
        )
        for how in (SELECTIONS if rows else ())
    ]


def accuracy_over_cost(record: Row) -> Picture:
    """Each row once: seeds as small dots, their mean with its 95 % interval."""
    rows = [row for row in record["rows"] if row["test_accuracy"]["mean"] is not None and row["total_cost"] is not None]
    costs = [row["total_cost"] for row in rows] or [1.0]
    equal = max(costs) - min(costs) < ALIKE
    title = "Accuracy against total cost"
    return Picture(title, _one_below_the_other(record, rows, fmean(costs)) if equal else _over_cost(record, rows))


def _one_below_the_other(record: Row, rows: list[Row], cost: float) -> str:
    """As in the table, from top to bottom."""
    figure = Figure(figsize=(SIZE[0], 0.9 + LINE * max(len(rows), 3)), layout="constrained")
    axes, colours = figure.subplots(), variant_colours(record)
    several = several_budgets(rows)
    for place, row in enumerate(rows):
        mean, spread, seeds = _accuracy(row)
        colour = colours[row["variant"]]
        axes.scatter(seeds, [place] * len(seeds), s=8, color=colour, alpha=0.35, linewidths=0)
        axes.errorbar([mean], [place], xerr=spread, fmt="o", color=colour, capsize=3, markersize=5)
    _as_far_as_seeds(axes.set_xlim, rows)
    names = [drawn(row_name(row, budgets=several, chosen=False)) for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    finish(axes, f"test accuracy (%)\neach at a total cost of {cost:.2f} of plain training", "")
    return as_svg(figure, "cost")


def _over_cost(record: Row, rows: list[Row]) -> str:
    figure, colours = Figure(figsize=SIZE, layout="constrained"), variant_colours(record)
    axes = figure.subplots()
    named: set[str] = set()
    for row in rows:
        mean, spread, seeds = _accuracy(row)
        cost, colour = row["total_cost"], colours[row["variant"]]
        axes.scatter([cost] * len(seeds), seeds, s=8, color=colour, alpha=0.35, linewidths=0)
        label = None if row["variant"] in named else drawn(row["variant"])
        named.add(row["variant"])
        axes.errorbar([cost], [mean], spread, fmt="o", color=colour, capsize=3, markersize=5, label=label)
    _as_far_as_seeds(axes.set_ylim, rows)
    finish(axes, "total cost (plain training = 1)", "test accuracy (%)")
    costs = [row["total_cost"] for row in rows]
    axes.set_xlim(min(costs) - 0.1, max(costs) + 0.1)
    return as_svg(figure, "cost")


def _accuracy(row: Row) -> tuple[float, list[list[float]] | None, list[float]]:
    """In percent: the mean, how far its interval reaches, if it has one, and each seed."""
    value = row["test_accuracy"]
    spread = None if value["low"] is None else [[100 * (value["mean"] - value["low"])]] * 2
    return 100 * value["mean"], spread, _seeds(row)


def _seeds(row: Row) -> list[float]:
    return [100 * run["test_accuracy"] for run in row["runs"] if run["test_accuracy"] is not None]


def _as_far_as_seeds(set_limits: Callable[[float, float], Any], rows: list[Row]) -> None:
    """Intervals of few seeds may reach far beyond."""
    seeds = [each for row in rows for each in _seeds(row)]
    if seeds:
        margin = 0.15 * (max(seeds) - min(seeds)) + 0.5
        set_limits(min(seeds) - margin, max(seeds) + margin)
