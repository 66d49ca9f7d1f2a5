"""Accuracy over what was varied or tuned: heat maps for two options, else curves with all else equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...reporting.axes import INK, drawn
from ...training.recipe import TrainConfig
from .drawing import SIZE, Picture, Row, as_svg, finish, style_of
from .table import row_name, several_budgets

BANDS = 4  # variants whose intervals can be told apart


@dataclass(frozen=True)
class Point:
    """Accuracy at values of what was varied; `low` and `high` are the ends of its interval, if known."""

    at: Row
    mean: float
    low: float | None = None
    high: float | None = None


def grids(record: Row) -> list[Picture]:
    """Test accuracy over what the whole study is repeated for, for each budget."""
    found: list[Picture] = []
    budgets = dict.fromkeys(row["budget"] for row in record["rows"])
    grid = list(record["definition"]["grid"])
    for budget in budgets if grid else ():
        rows = [row for row in record["rows"] if row["budget"] == budget]
        groups: dict[str, list[Point]] = {row["variant"]: [] for row in rows}
        for row in rows:
            value = row["test_accuracy"]
            if value["mean"] is not None:
                groups[row["variant"]].append(Point(row["point"], value["mean"], value["low"], value["high"]))
        suffix = f", equal {budget.replace('_', ' ')}" if len(budgets) > 1 else ""
        found += _over_options(record, grid, groups, "test accuracy (%)", suffix)
    return found


def tries_of_all(record: Row) -> list[Picture]:
    """What was tuned: a picture for each set of options, with the variants that were tuned over it."""
    by_options: dict[tuple[str, ...], dict[str, list[Point]]] = {}
    several = several_budgets(record["rows"])
    for row in record["rows"]:
        tries = [each for each in row["tries"] if each["validation_accuracy"] is not None]
        options = tuple(dict.fromkeys(name for each in tries for name in each["values"]))
        name = row_name(row, budgets=several, chosen=False)
        unnamed = {option: _unless_tried(record, row["variant"], option) for option in options}
        for each in tries:
            point = Point({**unnamed, **each["values"]}, each["validation_accuracy"])
            by_options.setdefault(options, {}).setdefault(name, []).append(point)
    return [
        picture
        for options, groups in by_options.items()
        for picture in _over_options(record, options, groups, "validation accuracy (%)", ", of the tries")
    ]


def _unless_tried(record: Row, variant: str, option: str) -> Any:
    """The value that a try of the variant has which does not name the option."""
    for given in (record["definition"]["variants"][variant]["changes"], record["definition"]["base"]):
        if option in given:
            return given[option]
    return TrainConfig.model_fields[option].get_default(call_default_factory=True)


def _over_options(
    record: Row, options: Sequence[str], groups: dict[str, list[Point]], label: str, suffix: str
) -> list[Picture]:
    """One option: curves. Two: a heat map for each variant. More: for each option, curves with the others fixed."""
    means = [100 * point.mean for points in groups.values() for point in points]
    if len(options) == 2 and means:
        limits = min(means), max(means)
        over = " and ".join(name.replace("_", " ") for name in options)
        return [
            Picture(
                f"{variant}: {label} over {over}{suffix}",
                _heat_map(points, options, limits, f"{label}{suffix}{variant}"),
            )
            for variant, points in groups.items()
            if points
        ]
    title = f"{label.removesuffix(' (%)').capitalize()} over "
    equal = ", all else equal" if len(options) > 1 else ""
    found = ((name, lines(groups, name)) for name in options)
    return [
        Picture(f"{title}{name.replace('_', ' ')}{equal}{suffix}", curves(record, name, joined, label))
        for name, joined in found
        if joined
    ]


def lines(groups: dict[str, list[Point]], option: str) -> dict[str, list[list[Point]]]:
    """For each variant, points that differ in `option` and in nothing else, where there are several."""
    found: dict[str, list[list[Point]]] = {}
    for variant, points in groups.items():
        by_others: dict[str, list[Point]] = {}
        for point in points:
            others = {name: value for name, value in point.at.items() if name != option}
            by_others.setdefault(repr(sorted(others.items())), []).append(point)
        if several := [line for line in by_others.values() if len(line) > 1]:
            found[variant] = several
    return found


def curves(record: Row, option: str, groups: dict[str, list[list[Point]]], label: str) -> str:
    """Lines of each variant over `option`, which all of their points have; a band where there is one line of each."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    values = values_of([point for joined in groups.values() for line in joined for point in line], option)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = {repr(value): value if numbers else place for place, value in enumerate(values)}
    banded = len(groups) <= BANDS and all(len(joined) == 1 for joined in groups.values())
    for variant, joined in groups.items():
        style = style_of(record, variant)
        for number, line in enumerate(joined):
            kept = sorted(line, key=lambda point: places[repr(point.at[option])])
            x, y = [places[repr(point.at[option])] for point in kept], [100 * point.mean for point in kept]
            name = None if number else drawn(variant)
            axes.plot(x, y, marker="o", markersize=4, color=style.color, linestyle=style.linestyle, label=name)
            if banded and all(point.low is not None and point.high is not None for point in kept):
                low, high = ([100 * (getattr(point, end) or 0) for point in kept] for end in ("low", "high"))
                limits = axes.get_ylim()
                axes.fill_between(x, low, high, color=style.color, alpha=0.12, linewidth=0)
                axes.set_ylim(limits)
    if numbers and all(isinstance(value, int) for value in values) and len(values) <= 8:
        axes.set_xticks(values)
    if numbers and min(values) > 0 and max(values) / min(values) >= 8:
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
    elif not numbers:
        axes.set_xticks(range(len(values)), [drawn(str(value)) for value in values])
        axes.margins(x=0.15)
    finish(axes, option.replace("_", " "), label)
    return as_svg(figure, f"{option}{label}{list(groups)}")


def _heat_map(points: list[Point], options: Sequence[str], limits: tuple[float, float], salt: str) -> str:
    across, down = (values_of(points, option) for option in options)
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
    return as_svg(figure, salt)


def values_of(points: list[Point], option: str) -> list[Any]:
    values = list({repr(point.at[option]): point.at[option] for point in points if option in point.at}.values())
    numbers = all(isinstance(value, int | float) for value in values)
    return sorted(values) if numbers else values
