"""Depth profiles: every measure over the layers, methods side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...reporting.axes import INK, SOFT, quiet
from .config import TITLES
from .measures import probed_layers
from .style import ROW_COLOURS


@dataclass(frozen=True)
class Panel:
    """One measure: where its profile starts, and what to call it."""

    key: str
    title: str
    label: str
    start: int = 1
    x: str = "layer"
    log: bool = False
    null: str | None = None
    probed: bool = False  # at `probed_layers` only

    def layers(self, depth: int, length: int) -> np.ndarray:
        return np.asarray(probed_layers(depth)) if self.probed else np.arange(self.start, self.start + length)


PANELS = (
    Panel("reuse", "Reuse", "mean max r with the layer before"),
    Panel("reuse_by_distance", "Reuse over a distance", "mean max r with layer l − k", x="distance k"),
    Panel("recreated", "Recreated units", "units of the layer", start=0),
    Panel("norm_ratio", "Size of what a block adds", "‖branch‖ / ‖stream‖", log=True),
    Panel("cosine", "Direction of what a block adds", "cosine(branch, stream)"),
    Panel("block_influence", "Block influence (a weak proxy)", "1 − cosine(before, after)", log=True),
    Panel("probe_accuracy", "Early readout", "accuracy of a linear probe", start=0, probed=True),
    Panel("probe_bits", "Label, linearly", "held-out cross-entropy (bits)", start=0, probed=True),
    Panel("input_r2", "Input, linearly", "R² of a ridge reconstruction", start=0, probed=True),
    Panel(
        "ksg_information",
        "Position along the arm",
        "KSG information of 2 PCs (nats)",
        start=0,
        null="ksg_null",
        probed=True,
    ),
    Panel("binned_information", "Binned information (clustering)", "bits, 30 bins a unit", start=0),
    Panel("cka_with_last", "Similarity to the last layer", "debiased CKA", start=0),
    Panel("duplicates", "Duplicate units", "share with r ≥ 0.95 in the layer", start=0),
    Panel("effective_units", "Effective units", "participation ratio", start=0),
    Panel("developments", "Different developments", "participation ratio, over training", start=0),
)


def draw_profiles(record: dict[str, Any]) -> Figure:
    """A panel per measure; a line per method with its 95 % interval over seeds, the untrained network dashed."""
    columns = 3
    lines = -(-(len(PANELS) + 1) // columns)
    figure = Figure(figsize=(12.5, 2.75 * lines), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.1)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    grid = figure.subplots(lines, columns).flatten()
    for axes, panel in zip(grid, PANELS, strict=False):
        draw_panel(axes, panel, record)
    legend = grid[len(PANELS)]
    handles, labels = grid[0].get_legend_handles_labels()
    legend.legend(handles, labels, loc="center", frameon=False, fontsize=12, title=_seeds(record), title_fontsize=10)
    for axes in grid[len(PANELS) :]:
        axes.set_axis_off()
    return figure


def draw_panel(axes: Axes, panel: Panel, record: dict[str, Any]) -> None:
    for name, row in record["rows"].items():
        if panel.key not in row["profiles"]:
            continue  # the untrained network has no development
        profile = row["profiles"][panel.key]
        mean = np.asarray(profile["mean"])
        layers = panel.layers(record["config"]["depth"], len(mean))
        colour = ROW_COLOURS[name]
        style: dict[str, Any] = {"linestyle": (0, (4, 2)), "zorder": 1} if name == "untrained" else {"zorder": 3}
        axes.plot(layers, mean, color=colour, linewidth=2, label=TITLES[name], **style)
        axes.fill_between(layers, profile["low"], profile["high"], color=colour, alpha=0.2, linewidth=0, zorder=2)
        if panel.null is not None and name != "untrained":
            axes.plot(layers, row["profiles"][panel.null]["mean"], ":", color=colour, linewidth=1.2, zorder=2)
    if panel.null is not None:
        axes.annotate(
            "dotted: positions shuffled",
            (0.98, 0.1),
            xycoords="axes fraction",
            ha="right",
            fontsize=7.5,
            color=SOFT,
        )
    if panel.key == "binned_information":
        axes.set_ylim(0, None)
    if panel.log:
        axes.set_yscale("log")
    quiet(axes)
    axes.set_title(panel.title, fontsize=11, color=INK, loc="left", weight="bold")
    axes.set_ylabel(panel.label, fontsize=8.5, color=SOFT)
    axes.set_xlabel(panel.x, fontsize=8.5, color=SOFT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _seeds(record: dict[str, Any]) -> str:
    seeds = record["config"]["seeds"]
    return f"mean and 95 % interval\nover {seeds} seeds" if seeds > 1 else "one seed"
