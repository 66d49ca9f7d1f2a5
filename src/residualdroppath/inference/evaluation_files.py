"""The files of an evaluation: a record, tables for other programs, the confusion matrix drawn, and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..records.files import write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NAMED = 40  # classes that are named along the axes of a figure


def write_evaluation(record: dict[str, Any], out: Path) -> Path:
    """`evaluation.json`, `classes.csv`, `confusion.csv`, `confusion.png` and `index.html`, whose path is returned."""
    from ..reporting.page import write_page  # only when there is something to draw

    names = [row["class"] for row in record["classes"]]
    write_json(out / "evaluation.json", record)
    write_text(out / "classes.csv", csv_text(list(record["classes"][0]), (row.values() for row in record["classes"])))
    rows = ([name, *counts] for name, counts in zip(names, record["confusion"], strict=True))
    write_text(out / "confusion.csv", csv_text(["class", *names], rows))
    accuracies = f"top-1 {percent(record['top1'])}" + (f", top-5 {percent(record['top5'])}" if "top5" in record else "")
    return write_page(
        out,
        confusion_figure(names, np.asarray(record["confusion"])),
        title=f"{record['network']} on {Path(record['data']).name}: {accuracies}",
        lines=[
            f"{record['images']:,} images of the {record['part']} part, cross-entropy {record['loss']:.4f} nats. In "
            "the figure rows are the classes that images are of, columns the answers, in shares of the row.",
            *record["notes"],
        ],
        tables=[
            {
                "title": "Classes",
                "head": ["class", "images", "accuracy", "answers", "of which right"],
                "rows": [class_row(row) for row in record["classes"]],
            }
        ],
        figure_name="confusion.png",
    )


def class_row(row: dict[str, Any]) -> list[str]:
    """One class as texts for a table."""
    return [
        row["class"],
        f"{row['images']:,}",
        percent(row["accuracy"]),
        f"{row['answers']:,}",
        percent(row["right_of_answers"]),
    ]


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def csv_text(head: Sequence[Any], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def confusion_figure(names: Sequence[str], counts: np.ndarray) -> Figure:
    """Shares of each row, whose classes are named if there are not too many."""
    from matplotlib.figure import Figure

    from ..reporting.axes import SOFT, drawn

    side = min(9.0, 3.5 + 0.16 * len(names))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the images of a class")
    axes.set_xlabel("answer")
    axes.set_ylabel("class")
    axes.tick_params(labelsize=7, colors=SOFT, length=0)
    if len(names) <= MOST_NAMED:
        shown = [drawn(name) for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=90)
        axes.set_yticks(range(len(names)), shown)
    return figure
