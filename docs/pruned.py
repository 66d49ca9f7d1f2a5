"""Accuracy against time of pruned networks, as a table and a picture, from the records of benchmarks/pruned_time.py."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import matplotlib
from cost_page import markdown_table
from matplotlib.figure import Figure

from residualdroppath.experiments.studies.drawing import variant_colours
from residualdroppath.reporting.axes import quiet

RECORDS = Path(__file__).parents[1] / "results" / "pruning"
Record = dict[str, Any]


def pruned(name: str) -> Record | None:
    """The record of the networks of a study, if there is one."""
    path = RECORDS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def pruned_table(record: Record) -> str:
    """For each number of branches out, the time of a forward, relative to the whole network, and test accuracy."""
    rows = [
        [variant, *(f"{100 * point['test_accuracy']:.2f} at {point['time']:.2f}" for point in points)]
        for variant, points in record["rows"].items()
    ]
    sizes = range(len(next(iter(record["rows"].values()))))
    head = ["variant", "whole (% at time 1)", *(f"{size} out" for size in sizes if size)]
    versions, command = record["environment"]["versions"], record["environment"]["command"]
    return (
        markdown_table(head, rows)
        + f"\n\n`python benchmarks/{command}`, after the study and with its runs, one thread, "
        + f"{record['environment']['device']}, torch {versions['torch']}; "
        + f"batches of {record['batch_size']}."
    )


def pruned_picture(record: Record, study: Record) -> str:
    figure, colours = Figure(figsize=(5.4, 3.7), layout="constrained"), variant_colours(study)
    axes = figure.subplots()
    for variant, points in record["rows"].items():
        times, accuracies = [point["time"] for point in points], [100 * point["test_accuracy"] for point in points]
        axes.plot(times, accuracies, "o-", color=colours[variant], markersize=4, label=variant)
    quiet(axes)
    axes.set_xlabel("time of a forward (whole network = 1)", fontsize=9)
    axes.set_ylabel("test accuracy (%)", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "pruned", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
