"""The unit grid: every unit of every layer over the square of inputs, as one picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from ...reporting.axes import INK, bare
from .config import TITLES
from .style import ROW_COLOURS, feature_palette

GAP = 4  # white pixels between maps, the first of each side
MAP_PIXELS = 36  # of a map in the figure
ARROWS = 40  # more would hide the maps


def grid_pixels(maps: np.ndarray, gap: int = GAP) -> np.ndarray:
    """Maps uint8[L, D, size, size] side by side, uint8[D * (size + gap), L * (size + gap)]: a column per layer.

    The gap, left and above each map, holds 0, which no map does.
    """
    layers, units, size, _ = maps.shape
    cells = np.zeros((units, size + gap, layers, size + gap), dtype=np.uint8)
    cells[:, gap:, :, gap:] = np.maximum(maps, 1).transpose(1, 2, 0, 3)
    return cells.reshape(units * (size + gap), layers * (size + gap))


def shrunk(maps: np.ndarray, largest: int) -> np.ndarray:
    """Maps uint8[..., size, size] averaged over whole squares of pixels, so that `size` is near `largest` at most."""
    size = maps.shape[-1]
    factor = -(-size // largest)
    kept = size // factor * factor
    cut = maps[..., :kept, :kept].reshape(*maps.shape[:-2], kept // factor, factor, kept // factor, factor)
    return np.round(cut.mean((-3, -1))).astype(np.uint8)


def grid_palette() -> np.ndarray:
    """uint8[256, 3]: white for 0, then the colours of features."""
    return np.concatenate([[[255, 255, 255]], feature_palette(255)]).astype(np.uint8)


def draw_unit_grid(row: str, pictures: dict[str, np.ndarray], result: dict[str, Any]) -> Figure:
    """Above, reuse of each layer; below, the maps, recreated units framed, an arrow from each unit that they repeat."""
    maps, sources = pictures["maps"], pictures["sources"]
    maps = shrunk(maps, MAP_PIXELS)
    layers, units = maps.shape[:2]
    width = 14.0
    cell = width / (layers + 2)
    figure = Figure(figsize=(width, cell * units + 2.6), layout="constrained")
    profile, grid = figure.subplots(2, 1, height_ratios=[1.1, cell * units], sharex=True)
    colour = ROW_COLOURS[row]

    reuse = np.asarray(result["profiles"]["reuse"])
    profile.bar(range(1, layers), reuse, 0.82, color=colour)
    profile.set_ylim(min(0.5, reuse.min()), 1)
    profile.set_ylabel("reuse", fontsize=10, color=INK)
    profile.spines[["top", "right", "bottom"]].set_visible(False)
    profile.tick_params(bottom=False, labelbottom=False, labelsize=8)
    scalars = result["scalars"]
    profile.set_title(
        f"{TITLES[row]}:  {scalars['recreated']} recreated units,  mean reuse {scalars['reuse']:.3f},  "
        f"test accuracy {100 * scalars['test_accuracy']:.1f} %",
        fontsize=15, color=INK, loc="left", pad=10,
    )  # fmt: skip

    grid.imshow(
        grid_palette()[grid_pixels(maps)],
        extent=(-0.5, layers - 0.5, units - 0.5, -0.5),
        aspect="auto",
        interpolation="antialiased",
    )
    bare(grid)
    step = 1 if layers <= 12 else 4
    grid.set_xticks(range(0, layers, step), ["input" if k == 0 else str(k) for k in range(0, layers, step)])
    grid.set_yticks(range(0, units, 1 if units <= 12 else 4))
    grid.tick_params(length=0, labelsize=9, colors="#4a5563")
    grid.set_xlabel("layer: the residual stream after so many blocks", fontsize=11, color=INK)
    grid.set_ylabel("unit", fontsize=11, color=INK)
    _mark_recreated(grid, sources, maps.shape[2])
    return figure


def _mark_recreated(axes: Axes, sources: np.ndarray, size: int) -> None:
    inset = GAP / (size + GAP) / 2  # the middle of the map lies right of and below the middle of its cell
    for layer, unit, *_ in sources:
        axes.add_patch(
            Rectangle(
                (layer - 0.5 + inset, unit - 0.5 + inset), 1, 1, fill=False, edgecolor=INK, linewidth=2.2,
                label="recreated",
            )
        )  # fmt: skip
    # The farthest ones say most, if not all can be shown.
    shown = sorted(sources.tolist(), key=lambda source: source[2] - source[0])[:ARROWS]
    for layer, unit, from_layer, from_unit in shown:
        axes.add_patch(
            FancyArrowPatch(
                (from_layer + inset, from_unit + inset), (layer - 0.36 + inset, unit + inset),
                arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0, connectionstyle="arc3,rad=-0.18",
                color=INK, linewidth=1.1, alpha=0.75, label="arrow",
            )
        )  # fmt: skip
        axes.plot(from_layer + inset, from_unit + inset, "o", color="white", markeredgecolor=INK, markersize=5)
    if len(shown) < len(sources):
        axes.text(
            1, -0.012, f"arrows: the farthest {len(shown)} of {len(sources)}",
            transform=axes.transAxes, ha="right", va="top", fontsize=9, color="#4a5563",
        )  # fmt: skip
