"""Pictures of a study: accuracy against total cost, and accuracy over what was varied, as curves and heat maps."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ...reporting.axes import INK, drawn, quiet
from ...reporting.page import COLOURS
from ...training.recipe import TrainConfig
from .elastic_depth import SELECTIONS
from .table import row_name

Row = dict[str, Any]
OTHERS = ("#8a5aa8", "#2a9d6f", "#c2452d", "#6b8e23", "#b0578d", "#3f7f8c", "#7a6a4f", "#4b5fc0")
SIZE = (5.4, 3.7)
ALIKE = 0.05  # costs that are equal but for rounding to whole iterations
TAKEN_OUT = {
    "chosen": "those that cost least on validation data, one by one",
    "random": "random ones",
    "worst": "those that cost most on validation data, one by one",
}


@dataclass(frozen=True)
class Picture:
    title: str
    svg: str


@dataclass(frozen=True)
class Point:
    """Accuracy at values of what was varied; `low` and `high` are the ends of its interval, if known."""

    at: Row
    mean: float
    low: float | None = None
    high: float | None = None


def variant_colours(record: Row) -> dict[str, str]:
    """The method's own for the first variant of it, others by their order."""
    found: dict[str, str] = {}
    others = list(OTHERS)
    for row in record["rows"]:
        if row["variant"] not in found:
            own = COLOURS.get(row["method"])
            free = own is not None and own not in found.values()
            found[row["variant"]] = own if own is not None and free else others[len(found) % len(others)]
    return found


def pictures(record: Row) -> list[Picture]:
    found = [accuracy_over_cost(record)]
    budgets = dict.fromkeys(row["budget"] for row in record["rows"])
    grid = list(record["definition"]["grid"])
    for budget in budgets if grid else ():
        rows = [row for row in record["rows"] if row["budget"] == budget]
        groups = {row["variant"]: [] for row in rows}
        for row in rows:
            value = row["test_accuracy"]
            if value["mean"] is not None:
                groups[row["variant"]].append(Point(row["point"], value["mean"], value["low"], value["high"]))
        suffix = f", equal {budget.replace('_', ' ')}" if len(budgets) > 1 else ""
        found += _over_options(record, grid, groups, "test accuracy (%)", suffix)
    return found + tries_of_all(record) + without_branches(record)


def tries_of_all(record: Row) -> list[Picture]:
    """What was tuned: a picture for each set of options, with the variants that were tuned over it."""
    by_options: dict[tuple[str, ...], dict[str, list[Point]]] = {}
    several = len({row["budget"] for row in record["rows"]}) > 1
    for row in record["rows"]:
        tries = [each for each in row["tries"] if each["validation_accuracy"] is not None]
        options = tuple(dict.fromkeys(name for each in tries for name in each["values"]))
        name = row_name(row, budgets=several, chosen=False)
        for each in tries:
            at = {option: each["values"].get(option, _default(record, option)) for option in options}
            point = Point(at, each["validation_accuracy"])
            by_options.setdefault(options, {}).setdefault(name, []).append(point)
    return [
        picture
        for options, groups in by_options.items()
        for picture in _over_options(record, options, groups, "validation accuracy (%)", ", of the tries")
    ]


def _default(record: Row, option: str) -> Any:
    """The value that a try has which does not name the option."""
    field = TrainConfig.model_fields[option]
    return record["definition"]["base"].get(option, field.get_default(call_default_factory=True))


def without_branches(record: Row) -> list[Picture]:
    """Accuracy over the number of branches that are taken out, by how they are picked; none if it was not measured."""
    rows = [row for row in record["rows"] if "elastic_depth" in row]
    several = len({row["budget"] for row in record["rows"]}) > 1
    return [
        Picture(
            f"Without branches: {TAKEN_OUT[how]}",
            _curves(
                record,
                "branches taken out",
                {
                    row_name(row, budgets=several, chosen=False): [
                        Point({"branches taken out": size}, value["mean"], value["low"], value["high"])
                        for size, value in enumerate([row["test_accuracy"], *row["elastic_depth"][how]])
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
    figure, colours = Figure(figsize=SIZE, layout="constrained"), variant_colours(record)
    axes = figure.subplots()
    named: set[str] = set()
    lowest = highest = None
    costs = [row["total_cost"] for row in record["rows"] if row["total_cost"] is not None] or [1.0]
    equal = max(costs) - min(costs) < ALIKE  # then side by side, in order of the table
    for place, row in enumerate(record["rows"]):
        value, cost = row["test_accuracy"], row["total_cost"]
        if value["mean"] is None or cost is None:
            continue
        cost = place if equal else cost
        colour = colours[row["variant"]]
        seeds = [100 * run["test_accuracy"] for run in row["runs"] if run["test_accuracy"] is not None]
        axes.scatter([cost] * len(seeds), seeds, s=8, color=colour, alpha=0.35, linewidths=0)
        label = None if row["variant"] in named else drawn(row["variant"])
        named.add(row["variant"])
        spread = None if value["low"] is None else [[100 * (value["mean"] - value["low"])]] * 2
        axes.errorbar(
            [cost], [100 * value["mean"]], spread, fmt="o", color=colour, capsize=3, markersize=5, label=label
        )
        lowest = min(seeds) if lowest is None else min(lowest, *seeds)
        highest = max(seeds) if highest is None else max(highest, *seeds)
    if lowest is not None and highest is not None:  # intervals of few seeds may reach far beyond
        margin = 0.15 * (highest - lowest) + 0.5
        axes.set_ylim(lowest - margin, highest + margin)
    if equal:
        _finish(axes, f"each at a total cost of {fmean(costs):.2f} of plain training", "test accuracy (%)")
        axes.set_xticks([])
        axes.set_xlim(-0.6, len(record["rows"]) - 0.4)
    else:
        _finish(axes, "total cost (plain training = 1)", "test accuracy (%)")
        axes.set_xlim(min(costs) - 0.1, max(costs) + 0.1)
    return Picture("Accuracy against total cost", _svg(figure, "cost"))


def _over_options(
    record: Row, options: Sequence[str], groups: dict[str, list[Point]], label: str, suffix: str
) -> list[Picture]:
    """One option: curves. Two: a heat map for each variant. More: for each option, the best over the others."""
    shown = {name.replace("_", " "): name for name in options}
    means = [100 * point.mean for points in groups.values() for point in points]
    if not means:  # nothing has ended yet, or all diverged
        return []
    if len(options) == 2:
        limits = min(means), max(means)
        return [
            Picture(
                f"{variant}: {label} over {' and '.join(shown)}{suffix}",
                _heat_map(points, options, limits, f"{label}{suffix}{variant}"),
            )
            for variant, points in groups.items()
            if points
        ]
    best = " (best over the other options)" if len(options) > 1 else ""
    return [
        Picture(
            f"{label.removesuffix(' (%)').capitalize()} over {text}{best}{suffix}", _curves(record, name, groups, label)
        )
        for text, name in shown.items()
    ]


def _curves(record: Row, option: str, groups: dict[str, list[Point]], label: str) -> str:
    figure, colours = Figure(figsize=SIZE, layout="constrained"), variant_colours(record)
    axes = figure.subplots()
    values = _values([point for points in groups.values() for point in points], option)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = {repr(value): value if numbers else place for place, value in enumerate(values)}
    for variant, points in groups.items():
        best: dict[str, Point] = {}
        for point in points:
            key = repr(point.at.get(option))
            if key not in best or point.mean > best[key].mean:
                best[key] = point
        kept = [(places[repr(value)], best[repr(value)]) for value in values if repr(value) in best]
        x, y = [place for place, _ in kept], [100 * point.mean for _, point in kept]
        axes.plot(x, y, "o-", color=_colour(colours, variant), markersize=4, label=drawn(variant))
        if kept and all(point.low is not None and point.high is not None for _, point in kept):
            low, high = ([100 * (getattr(point, end) or 0) for _, point in kept] for end in ("low", "high"))
            limits = axes.get_ylim()
            axes.fill_between(x, low, high, color=_colour(colours, variant), alpha=0.12, linewidth=0)
            axes.set_ylim(limits)
    if numbers and all(isinstance(value, int) for value in values) and len(values) <= 8:
        axes.set_xticks(values)
    if numbers and min(values) > 0 and max(values) / min(values) >= 8:
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
    elif not numbers:
        axes.set_xticks(range(len(values)), [drawn(str(value)) for value in values])
    _finish(axes, option.replace("_", " "), label)
    return _svg(figure, f"{option}{label}{list(groups)}")


def _colour(colours: dict[str, str], name: str) -> str:
    """That of the variant, which the name of a row begins with."""
    begins = [variant for variant in colours if name.startswith(f"{variant},")]  # "a" and "a, b" may both be there
    return colours.get(name) or colours[max(begins, key=len)]


def _heat_map(points: list[Point], options: Sequence[str], limits: tuple[float, float], salt: str) -> str:
    across, down = (_values(points, option) for option in options)
    table = np.full((len(down), len(across)), np.nan)
    for point in points:
        table[down.index(point.at[options[1]]), across.index(point.at[options[0]])] = 100 * point.mean
    figure = Figure(figsize=(5.4, 1.4 + 0.45 * len(down)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(table, cmap="viridis", aspect="auto", vmin=limits[0], vmax=limits[1])
    middle = sum(limits) / 2
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            ink = INK if value > middle else "white"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(len(across)), [drawn(str(value)) for value in across], fontsize=8)
    axes.set_yticks(range(len(down)), [drawn(str(value)) for value in down], fontsize=8)
    axes.set_xlabel(options[0].replace("_", " "), fontsize=9)
    axes.set_ylabel(options[1].replace("_", " "), fontsize=9)
    axes.spines[:].set_visible(False)
    figure.colorbar(image).ax.tick_params(labelsize=8)
    return _svg(figure, salt)


def _values(points: list[Point], option: str) -> list[Any]:
    values = list({repr(point.at[option]): point.at[option] for point in points if option in point.at}.values())
    numbers = all(isinstance(value, int | float) for value in values)
    return sorted(values) if numbers else values


def _finish(axes: Any, x_label: str, y_label: str) -> None:
    quiet(axes)
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def _svg(figure: Figure, salt: str) -> str:
    """The drawing as an element of a page, as wide as its place."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    head, _, rest = text.partition(">")
    kept = [part for part in head.split() if not part.startswith(("width=", "height="))]
    return " ".join(kept) + ">" + rest
