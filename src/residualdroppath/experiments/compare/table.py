"""The table of a comparison: in the terminal, and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from ...reporting.axes import finish_axes
from ...reporting.page import COLOURS, write_page
from ...training.run_folder import RunFolder
from .run import run_path

HEAD = ["method", "test accuracy (%)", "validation (%)", "epochs", "cost per iteration", "per cycle", "in total"]


def table_rows(summary: dict[str, Any]) -> list[list[str]]:
    """One list of texts per row, in the order of `HEAD`."""
    return [
        [
            row["name"].replace("-", " "),
            _percent(row["test_accuracy"]),
            _percent(row["validation_accuracy"]),
            str(row["epochs"]),
            f"{row['cost']['per_iteration']:.2f}",
            f"{row['cost']['per_cycle']:.2f}",
            f"{row['total_cost']:.2f}",
        ]
        for row in summary["rows"]
    ]


def terminal_table(summary: dict[str, Any]) -> Table:
    """Fits 80 columns: headings and names wrap between their words, figures do not."""
    rows = table_rows(summary)
    table = Table(
        title=_title(summary["config"]), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for index, (name, cells) in enumerate(zip(HEAD, zip(*rows, strict=True), strict=True)):
        whole = name.split() + (" ".join(cells).split() if index == 0 else list(cells))
        table.add_column(name, justify="left" if index == 0 else "right", width=max(map(len, whole)))
    for row in rows:
        table.add_row(*row)
    return table


def write_compare_page(summary: dict[str, Any], out: Path) -> Path:
    """`curves.png` and `index.html`: validation accuracy over cost, each seed thin, their mean thick."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, quantity, factor, label in zip(
        figure.subplots(1, 2),
        ("validation_loss", "validation_accuracy"),
        (1, 100),
        ("validation cross-entropy (nats)", "validation accuracy (%)"),
        strict=True,
    ):
        lowest = []
        for row in summary["rows"]:
            folders = [RunFolder(run_path(out, row["name"], run["seed"])) for run in row["runs"]]
            metrics = [[epoch for epoch in folder.metrics() if quantity in epoch] for folder in folders]
            curves = [[factor * epoch[quantity] for epoch in run] for run in metrics]
            mean = [sum(values) / len(values) for values in zip(*curves, strict=True)]
            cost = row["cost"]["per_iteration"] * summary["rows"][0]["iterations"] / summary["rows"][0]["epochs"]
            units = [cost * epoch["epoch"] for epoch in metrics[0]]
            style = "-" if row["equal"] == "iterations" else "--"
            for curve in curves:
                axes.plot(units, curve, style, color=COLOURS[row["method"]], alpha=0.25, linewidth=0.8)
            axes.plot(
                units, mean, style, color=COLOURS[row["method"]], linewidth=2, label=row["name"].replace("-", " ")
            )
            lowest.append(mean[len(mean) // 3])
        finish_axes(axes, "cost (plain iterations)", label)
        if factor == 100:
            axes.set_ylim(min(lowest) - 2, 100.2)
        else:
            axes.set_ylim(0, max(lowest) * 1.5)
    config = summary["config"]
    return write_page(
        out,
        figure,
        title=_title(config),
        lines=[
            "Accuracy: mean ± standard deviation over seeds; the test set was used once, after training. Cost is time "
            "relative to plain training, taken in turn with plain iterations in this run: per iteration (an optimizer "
            "update), per cycle (an update of the trunk), and in total for all iterations of the row.",
        ],
        tables=[
            {"title": "Methods", "head": HEAD, "rows": table_rows(summary)},
            {"title": "Runs", "head": ["folder", "test accuracy (%)", "validation (%)"], "rows": _runs(summary)},
            {"title": "Recipe", "head": ["option", "value"], "rows": list(config.items()), "details": True},
            {
                "title": "Environment",
                "head": ["what", "value"],
                "rows": list(summary["environment"].items()),
                "details": True,
            },
        ],
    )


def _runs(summary: dict[str, Any]) -> list[list[str]]:
    return [
        [
            run_path(Path(), row["name"], run["seed"]).as_posix(),
            f"{100 * run['test_accuracy']:.2f}",
            f"{100 * run['validation_accuracy']:.2f}",
        ]
        for row in summary["rows"]
        for run in row["runs"]
    ]


def _title(config: dict[str, Any]) -> str:
    shape = f" {config['depth']}x{config['width']}" if config["model"] == "small_resnet" else ""
    return f"{Path(config['data']).name}, {config['model']}{shape}, {len(config['seeds'])} seeds"


def _percent(value: dict[str, Any]) -> str:
    deviation = "" if value["std"] is None else f" ± {100 * value['std']:.2f}"
    return f"{100 * value['mean']:.2f}{deviation}"
