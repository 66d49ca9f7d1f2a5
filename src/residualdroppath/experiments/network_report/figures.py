"""Figures of an analysis for papers and pages, from its record alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, NullFormatter

from ...reporting.axes import AXIS, INK, SOFT, drawn, quiet
from .panel_catalogue import (
    Matrix,
    Panel,
    baseline,
    colours,
    matrix,
    profile,
    shown_matrices,
    shown_panels,
)  # fmt: skip

VALUES = LinearSegmentedColormap.from_list("values", ["#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b"])
DIFFERENCES = LinearSegmentedColormap.from_list("differences", ["#8c3b00", "#e0955a", "#f7f5f0", "#5c9ac7", "#0b4a82"])
Row = dict[str, Any]


def draw_profiles(record: Row) -> Figure:
    """A panel per measure, a line per network."""
    networks = record["networks"]
    panels = shown_panels(networks)
    columns = min((5, 4, 3), key=lambda count: (-len(panels) % count, -count)) if len(panels) > 3 else len(panels)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.3 * columns, 2.55 * lines + 0.4), layout="constrained")
    grid = np.atleast_1d(figure.subplots(lines, columns)).flatten()
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, panel, networks)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    _legend(figure, networks)
    return figure


def draw_matrices(record: Row) -> Figure:
    """A line per table: each network, and the second minus the first."""
    networks = record["networks"]
    tables = shown_matrices(networks)
    differ = len(networks) == 2 and len(networks[0]["layers"]) == len(networks[1]["layers"])
    lines = len(networks) + differ
    figure = Figure(figsize=(3.2 * len(tables), 2.9 * lines), layout="constrained")
    grid = figure.subplots(lines, len(tables), squeeze=False)
    for column, table in enumerate(tables):
        found = [_array(matrix(network, table.key)) for network in networks]
        low = min([0.0, *(float(np.nanmin(each)) for each in found if np.isfinite(each).any())])
        for line, values in enumerate(found):
            _draw_matrix(figure, grid[line, column], values, table, (low, 1.0))
            grid[line, column].set_title(
                f"{table.title}\n{drawn(networks[line]['title'])}", fontsize=8.5, color=INK, loc="left"
            )
        if differ:
            values = found[1] - found[0]
            limit = max(0.05, float(np.nanmax(np.abs(values), initial=0)))
            _draw_matrix(figure, grid[-1, column], values, table, (-limit, limit), differs=True)
            grid[-1, column].set_title(f"{table.title}\nsecond − first", fontsize=8.5, color=INK, loc="left")
    return figure


def draw_deletion(record: Row) -> Figure:
    """What is left without each branch, without random sets of branches, and in another order."""
    networks = record["networks"]
    deletes = [network for network in networks if "deletion" in network["measures"]]
    reorders = [network for network in networks if "reordering" in network["measures"]]
    kinds = [("single", deletes), ("sets", deletes), ("random", reorders)]
    kinds = [(kind, own) for kind, own in kinds if own]
    widths = [1.5 if kind == "single" else 1.0 for kind, _ in kinds]
    figure = Figure(figsize=(3.6 * sum(widths), 3.7), layout="constrained")
    axes_of = figure.subplots(1, len(kinds), squeeze=False, width_ratios=widths)[0]
    by = {id(network): colour for network, colour in zip(networks, colours(networks), strict=True)}
    for axes, (kind, own) in zip(axes_of, kinds, strict=True):
        quantity = "accuracy" if all(each["measures"]["answers"]["accuracy"] is not None for each in own) else "kept"
        for place, network in enumerate(own):
            draw = {"single": _draw_single, "sets": _draw_sets, "random": _draw_random}[kind]
            draw(axes, network, quantity, by[id(network)], place, len(own))
        quiet(axes)
        axes.set_ylim(0, 102)
        axes.set_ylabel("accuracy (%)" if quantity == "accuracy" else "answers kept (%)", fontsize=9, color=SOFT)
    _legend(figure, networks)
    return figure


def _draw_panel(axes: Axes, panel: Panel, networks: list[Row]) -> None:
    for network, colour in zip(networks, colours(networks), strict=True):
        values = profile(network, panel.key)
        if values is None:
            continue
        layers = np.arange(panel.start, panel.start + len(values))
        axes.plot(layers, _array(values), color=colour, linewidth=1.8, marker="o", markersize=3)
        below = baseline(network, panel.key)
        if below is not None:
            axes.plot(layers, np.broadcast_to(_array(below), layers.shape), ":", color=colour, linewidth=1.2)
            word, height = ("shuffled", 0.14) if panel.key == "information" else ("entropy of the labels", 0.82)
            place = {"xycoords": "axes fraction", "ha": "right", "fontsize": 7, "color": SOFT}
            axes.annotate(f"dotted: {word}", (0.98, height), **place)
    quiet(axes)
    if panel.log:
        axes.set_yscale("log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(plain)
        low, high = axes.get_ylim()
        axes.yaxis.set_minor_formatter(plain if high < 10 * low else NullFormatter())
        axes.tick_params(which="minor", labelsize=7, colors=SOFT, length=2)
    elif panel.zero:
        axes.axhline(0, color=AXIS, linewidth=0.8)
        if axes.dataLim.height == 0:
            axes.set_ylim(-0.05, 1)
    axes.set_title(panel.title, fontsize=10, color=INK, loc="left", weight="bold")
    axes.set_ylabel(panel.label, fontsize=8, color=SOFT)
    axes.set_xlabel("layer", fontsize=8, color=SOFT)
    axes.set_xlim(-0.5, len(networks[0]["layers"]) - 0.5 if len(networks) == 1 else None)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_matrix(
    figure: Figure, axes: Axes, values: np.ndarray, table: Matrix, limits: tuple[float, float], *, differs: bool = False
) -> None:
    axes.set_facecolor("#f1f3f5")
    first, last = table.start - 0.5, table.start + len(values) - 0.5
    image = axes.imshow(
        values, cmap=DIFFERENCES if differs else VALUES, vmin=limits[0], vmax=limits[1],
        extent=(first, last, last, first), interpolation="nearest",
    )  # fmt: skip
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=7, colors=SOFT, length=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(labelsize=7, colors=SOFT, length=2)


def _draw_single(axes: Axes, network: Row, quantity: str, colour: str, place: int, count: int) -> None:
    deletion = network["measures"]["deletion"]
    values = 100 * _array(deletion["single"][quantity])
    width = 0.8 / count
    axes.bar(np.arange(1, len(values) + 1) + (place - (count - 1) / 2) * width, values, width * 0.92, color=colour)
    whole = 100 * (deletion["whole"]["accuracy"] if quantity == "accuracy" else 1.0)
    axes.axhline(whole, color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.set_title("Without one branch (dashed: whole)", fontsize=10.5, color=INK, loc="left", weight="bold")
    axes.set_xlabel("branch removed", fontsize=9, color=SOFT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_sets(axes: Axes, network: Row, quantity: str, colour: str, place: int, count: int) -> None:
    sizes, mean, spread = set_curve(network, quantity)
    axes.fill_between(sizes, mean - spread, mean + spread, color=colour, alpha=0.16, linewidth=0)
    axes.plot(sizes, mean, color=colour, linewidth=2, marker="o", markersize=4)
    axes.set_title("Without random sets", fontsize=10.5, color=INK, loc="left", weight="bold")
    axes.set_xlabel("branches removed (mean, ± sd over sets)", fontsize=9, color=SOFT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_random(axes: Axes, network: Row, quantity: str, colour: str, place: int, count: int) -> None:
    order = network["measures"]["reordering"]
    whole = order["whole"]["accuracy"] if quantity == "accuracy" else 1.0
    taus, values = [*order["random"]["tau"], 1.0], 100 * _array([*order["random"][quantity], whole])
    axes.scatter(taus, values, s=26, color=colour, alpha=0.8, linewidth=0)
    axes.set_title("Blocks reordered", fontsize=10.5, color=INK, loc="left", weight="bold")
    axes.set_xlabel("Kendall τ with the order as trained", fontsize=9, color=SOFT)
    axes.set_xlim(-1.1, 1.1)
    axes.xaxis.set_major_locator(MultipleLocator(0.5))


def set_curve(network: Row, quantity: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of branches removed from 0 on, and mean and standard deviation over the sets, in percent."""
    deletion = network["measures"]["deletion"]
    single = _array(deletion["single"][quantity])
    whole = deletion["whole"]["accuracy"] if quantity == "accuracy" else 1.0
    spread = float(single.std(ddof=1)) if len(single) > 1 else 0.0
    rows = [(0, whole, 0.0), (1, float(single.mean()), spread)]
    rows += [(each["size"], each[quantity]["mean"], each[quantity]["sd"]) for each in deletion["sets"]]
    sizes, mean, sd = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return sizes, 100 * mean, 100 * sd


def _legend(figure: Figure, networks: list[Row]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=3) for colour in colours(networks)]
    names = [drawn(network["title"]) for network in networks]
    figure.legend(handles, names, loc="outside upper left", ncols=2, frameon=False, fontsize=10)


def _array(values: Any) -> np.ndarray:
    """Numbers, NaN for None."""
    return np.array(values, dtype=object).astype(float) if values is not None else np.full((1, 1), np.nan)
