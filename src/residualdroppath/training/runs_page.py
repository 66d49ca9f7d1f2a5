"""The page of several runs: a table, validation accuracy over epochs and over time, and how their recipes differ."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..reporting.axes import drawn, finish_axes
from ..reporting.page import COLOURS, CONTROL_COLOUR, write_page
from .summaries import RunSummary, differing_options

STYLES = ("-", "--", ":", "-.")
MOST_IN_LEGEND = 12
# Of the largest time, what it is at least, and how many seconds a unit has.
UNITS = ((2 * 3600, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))


def write_runs_page(
    runs: Sequence[RunSummary], names: Sequence[str], head: Sequence[str], rows: Sequence[Sequence[str]], out: Path
) -> Path:
    """`curves.png` and `index.html`; `rows` under `head` are the table of runs."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    over_epochs, over_time = figure.subplots(1, 2, sharey=True)
    longest = max((run.seconds for run in runs), default=0.0)
    _, seconds, unit = next(each for each in UNITS if longest >= each[0])
    shown: dict[str, int] = {}
    for run, name in zip(runs, names, strict=True):
        method = "" if run.config is None else run.config.method
        style = STYLES[shown.setdefault(method, 0) % len(STYLES)]
        shown[method] += 1
        _draw(over_epochs, over_time, run, name, COLOURS.get(method, CONTROL_COLOUR), style, seconds)
    finish_axes(over_epochs, "epoch", "validation accuracy (%)")
    finish_axes(over_time, f"training time ({unit})", "validation accuracy (%)")
    over_time.tick_params(labelleft=True)
    legend = over_time.get_legend()
    if legend is not None:
        legend.remove()
    if len(runs) > MOST_IN_LEGEND and (crowded := over_epochs.get_legend()) is not None:
        crowded.remove()
    differing = differing_options(runs)
    tables = [
        {"title": "Runs", "head": list(head), "rows": [list(row) for row in rows]},
        {
            "title": "Options that differ",
            "head": ["option", *names],
            "rows": [[option, *values] for option, values in differing.items()] or [["none", *[""] * len(runs)]],
        },
    ]
    problems = [f"{run.path} could not be read: {run.problem}" for run in runs if run.problem]
    return write_page(
        out,
        figure,
        title=f"{len(runs)} runs" if len(runs) > 1 else "1 run",
        lines=[
            "Accuracies in percent; the best is that of the best validation, with its epoch. Time is that of training "
            "alone, as each run measured it, so it compares runs of one machine. Colours are methods, lines are runs.",
            *problems,
        ],
        tables=tables,
    )


def _draw(
    over_epochs: Axes, over_time: Axes, run: RunSummary, name: str, colour: str, style: str, seconds: float
) -> None:
    times = accumulate(row["train_seconds"] / seconds for row in run.epochs)
    points = [
        (row["epoch"], time, 100 * row["validation_accuracy"])
        for row, time in zip(run.epochs, times, strict=True)
        if "validation_accuracy" in row
    ]
    if not points:
        return
    epochs, hours, accuracies = zip(*points, strict=True)
    marker = "." if len(points) < 3 else ""
    for axes, x in ((over_epochs, epochs), (over_time, hours)):
        axes.plot(x, accuracies, style, color=colour, marker=marker, linewidth=1.4, label=drawn(name))
