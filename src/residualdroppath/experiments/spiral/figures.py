"""The other figures of the spiral: the answer, decision regions, matrices between layers, the sweep of thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ...reporting.axes import INK, SOFT, bare, quiet
from .config import TITLES
from .data import HALF_SIDE, Points
from .measures import LOST, LOSTS, SAME, SAMES
from .style import ARM_COLOURS, ROW_COLOURS, decision_colours

SHORT = {
    "untrained": "untrained",
    "plain": "plain",
    "drop_path": "drop\npath",
    "residual_drop_path": "Residual-\nDroppath",
}
ANSWERS = (
    ("recreated", "Recreated units", 1, False),
    ("reuse", "Mean reuse", 1, False),
    ("norm_ratio", "‖branch‖ / ‖stream‖", 1, False),
    ("train_loss", "Training loss (nats)", 1, True),
    ("test_accuracy", "Test accuracy (%)", 100, False),
)


def draw_answer(record: dict[str, Any]) -> Figure:
    """What was asked, with what stands beside it: a dot per seed, seeds joined, means with 95 % intervals."""
    figure = Figure(figsize=(14, 3.7), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    names = list(record["rows"])
    for axes, (key, title, factor, log) in zip(figure.subplots(1, len(ANSWERS)), ANSWERS, strict=True):
        values = np.asarray([record["rows"][name]["scalars"][key]["values"] for name in names]) * factor
        trained = values[1:] if key in ("train_loss", "test_accuracy") else values
        start = len(values) - len(trained)
        for seed in range(values.shape[1]):
            axes.plot(range(start, len(names)), trained[:, seed], color="#c9ced6", linewidth=0.8, zorder=1)
        for place, name in enumerate(names[start:], start):
            colour, own = ROW_COLOURS[name], record["rows"][name]["scalars"][key]
            axes.plot([place] * values.shape[1], values[place], "o", color=colour, alpha=0.45, markersize=5, zorder=2)
            mean = factor * own["mean"]
            axes.plot([place - 0.27, place + 0.27], [mean, mean], color=colour, linewidth=3, zorder=3)
            if own["low"] is not None:
                low = max(factor * own["low"], 1e-12) if log else factor * own["low"]
                axes.plot([place, place], [low, factor * own["high"]], color=colour, linewidth=1.6, zorder=3)
        if log:
            axes.set_yscale("log")
        if key == "recreated":
            axes.set_ylim(-0.3, max(4.0, values.max() + 0.5))
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if key == "test_accuracy":
            axes.set_ylim(min(99.0, trained.min() - 0.2), 100.05)
        quiet(axes)
        axes.grid(axis="x", visible=False)
        axes.set_xticks(range(start, len(names)), [SHORT[name] for name in names[start:]], fontsize=9)
        axes.set_xlim(start - 0.5, len(names) - 0.5)
        axes.set_title(title, fontsize=12, color=INK, loc="left", weight="bold")
    return figure


def draw_regions(pictures: dict[str, dict[str, np.ndarray]], results: dict[str, Any], test: Points) -> Figure:
    """What each network of the first seed decides over the square, and the test points."""
    figure = Figure(figsize=(3.6 * len(pictures), 4.0), layout="constrained")
    inputs, labels = test.inputs.numpy(), test.labels.numpy()
    for axes, (name, own) in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True):
        side = (-HALF_SIDE, HALF_SIDE)
        axes.imshow(decision_colours(own["decisions"]), extent=(*side, *side), interpolation="bilinear")
        for arm in range(len(own["decisions"])):
            axes.scatter(
                *inputs[labels == arm].T, s=5, color=ARM_COLOURS[arm % len(ARM_COLOURS)], edgecolor="white",
                linewidth=0.25,
            )  # fmt: skip
        bare(axes)
        accuracy = 100 * results[name]["scalars"]["test_accuracy"]
        axes.set_title(TITLES[name], fontsize=13, color=INK, weight="bold", pad=18)
        axes.text(
            0.5,
            1.02,
            f"test accuracy {accuracy:.1f} %",
            transform=axes.transAxes,
            ha="center",
            fontsize=10,
            color=SOFT,
        )
    return figure


MATRICES = (
    ("relations", "max r, mean over\nunits of layer l"),
    ("cka_streams", "CKA of streams"),
    ("cka_branches", "CKA of branches"),
    ("development", "alike in development, mean\nover units of layer l"),
)


def draw_matrices(record: dict[str, Any]) -> Figure:
    """Layers against layers, mean over seeds: a line per measure, a column per network."""
    names = list(record["rows"])
    figure = Figure(figsize=(3.1 * len(names) + 1.2, 3.0 * len(MATRICES) + 0.4), layout="constrained")
    grid = figure.subplots(len(MATRICES), len(names), squeeze=False)
    for name, top, bottom in zip(names, grid[0], grid[-1], strict=True):
        top.set_title(TITLES[name], fontsize=13, color=INK, weight="bold")
        bottom.set_xlabel("layer k", fontsize=9, color=SOFT)
    for line, (key, title) in zip(grid, MATRICES, strict=True):
        image = None
        for axes, name in zip(line, names, strict=True):
            if key not in record["rows"][name]["matrices"]:
                bare(axes)
                axes.set_xlabel("")
                axes.text(0.5, 0.5, "nothing develops", transform=axes.transAxes, ha="center", color=SOFT, fontsize=10)
                continue
            matrix = np.asarray(record["rows"][name]["matrices"][key])
            first = 1 if key == "cka_branches" else 0
            side = (first - 0.5, first + len(matrix) - 0.5)
            image = axes.imshow(matrix, origin="lower", extent=(*side, *side), vmin=0, vmax=1, cmap="magma")
            axes.tick_params(labelsize=8, colors=SOFT, length=2)
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(f"{title}\n\nlayer l", fontsize=10, color=INK)
        assert image is not None
        bar = figure.colorbar(image, ax=list(line), shrink=0.85, pad=0.01)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        bar.ax.tick_params(labelsize=8, length=0)
    return figure


ALONE, OTHER_GROUP = "#f1f2f4", "#c9ced6"
GROUP_COLOURS = [to_rgb(colour) for index, colour in enumerate(colormaps["tab20"].colors) if index not in (14, 15)]  # pyright: ignore[reportAttributeAccessIssue]
COLOURED = len(GROUP_COLOURS)  # tab20 without its greys
CELL = 9  # pixels of a unit, its gap included


def draw_groups(pictures: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Units of the first seed's networks, coloured by the group that develops alike: the largest in colour."""
    trained = {name: own["groups"] for name, own in pictures.items() if "groups" in own}
    figure = Figure(figsize=(4.6 * len(trained), 5.2), layout="constrained")
    for axes, (name, groups) in zip(figure.subplots(1, len(trained), squeeze=False)[0], trained.items(), strict=True):
        sides = (-0.5, len(groups) - 0.5, groups.shape[1] - 0.5, -0.5)
        axes.imshow(group_cells(groups), interpolation="nearest", extent=sides)
        axes.tick_params(length=0, labelsize=8, colors=SOFT)
        axes.spines[:].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(TITLES[name], fontsize=13, color=INK, weight="bold", pad=20)
        alike = f"{groups.max()} groups hold {100 * (groups > 0).mean():.0f} % of the units"
        axes.text(0.5, 1.01, alike, transform=axes.transAxes, ha="center", va="bottom", fontsize=10, color=SOFT)
        axes.set_xlabel("layer", fontsize=9, color=SOFT)
        axes.set_ylabel("unit", fontsize=9, color=SOFT)
    return figure


def group_cells(groups: np.ndarray) -> np.ndarray:
    """float[D * CELL, (L + 1) * CELL, 3]: a bar for what one group holds of a unit over neighbouring layers."""
    colours = np.asarray([to_rgb(ALONE), *GROUP_COLOURS, to_rgb(OTHER_GROUP)])
    cells = colours[np.minimum(groups, COLOURED + 1)].transpose(1, 0, 2).repeat(CELL, 0).repeat(CELL, 1)
    cells[CELL - 1 :: CELL] = 1.0
    ends = (groups[1:] != groups[:-1]) | (groups[1:] == 0)
    for layer, unit in np.argwhere(ends):
        cells[unit * CELL : (unit + 1) * CELL, (layer + 1) * CELL - 1] = 1.0
    return cells


def draw_sweep(record: dict[str, Any]) -> Figure:
    """How many units are recreated for other thresholds, mean over seeds; the one that is reported framed."""
    names = list(record["rows"])
    figure = Figure(figsize=(3.4 * len(names), 3.5), layout="constrained")
    highest = max(np.max(row["sweep"]) for row in record["rows"].values())
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        counts = np.asarray(record["rows"][name]["sweep"])
        axes.imshow(counts, cmap="YlGnBu", norm=PowerNorm(0.5, 0, max(highest, 1)), aspect="auto")
        _write_counts(axes, counts, highest)
        axes.set_title(TITLES[name], fontsize=13, color=INK, weight="bold")
        axes.set_xlabel("lost between: max r below", fontsize=9, color=SOFT)
        if name == names[0]:
            axes.set_ylabel("the same again: r at least", fontsize=9, color=SOFT)
    return figure


def _write_counts(axes: Axes, counts: np.ndarray, highest: float) -> None:
    for (line, column), count in np.ndenumerate(counts):
        colour = "white" if count > 0.35 * highest else INK
        reported = (SAMES[line], LOSTS[column]) == (SAME, LOST)
        axes.text(
            column,
            line,
            f"{count:.3g}" if count < 100 else f"{count:.0f}",
            ha="center",
            va="center",
            fontsize=11,
            color=colour,
            weight="bold" if reported else "normal",
        )
        if reported:
            axes.add_patch(_frame(column, line))
    axes.set_xticks(range(len(LOSTS)), [f"{value:g}" for value in LOSTS])
    axes.set_yticks(range(len(SAMES)), [f"{value:g}" for value in SAMES])
    axes.tick_params(length=0, labelsize=9, colors=SOFT)
    axes.spines[:].set_visible(False)


def _frame(column: float, line: float) -> Rectangle:
    return Rectangle((column - 0.47, line - 0.47), 0.94, 0.94, fill=False, edgecolor=INK, linewidth=2)
