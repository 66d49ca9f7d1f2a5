"""The page of one run: its curves, a table of epochs, and its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..reporting.axes import finish_axes
from ..reporting.page import COLOURS, write_page
from .recipe import TrainConfig
from .run_folder import RunFolder


def write_run_page(folder: RunFolder, config: TrainConfig, result: dict[str, Any]) -> Path:
    """`curves.png` and `index.html` of one run."""
    rows = folder.metrics()
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    colour = COLOURS[config.method]
    for axes, quantity, factor in ((left, "loss", 1), (right, "accuracy", 100)):
        for part, style in (("train", ":"), ("validation", "-")):
            values = [factor * row[f"{part}_{quantity}"] for row in rows]
            axes.plot(epochs, values, style, color=colour, label=part, marker="." if len(rows) < 3 else "")
        finish_axes(axes, "epoch", "cross-entropy (nats)" if quantity == "loss" else "accuracy (%)")
    accuracy = f"{100 * result['test_accuracy']:.2f} %"
    return write_page(
        folder.path,
        figure,
        title=f"{config.method} on {Path(config.data).name}: test accuracy {accuracy}",
        lines=[
            f"{config.model}, {result['parameters']:,} parameters, {result['train_images']:,} training images, "
            f"{result['iterations']:,} iterations, seed {config.seed}. Training accuracy is measured while training, "
            "dropped branches and augmentation included."
        ],
        tables=[
            {
                "title": "Epochs",
                "head": ["epoch", "train loss", "train accuracy", "validation loss", "validation accuracy", "images/s"],
                "rows": [
                    [
                        row["epoch"],
                        f"{row['train_loss']:.4f}",
                        f"{100 * row['train_accuracy']:.2f} %",
                        f"{row['validation_loss']:.4f}",
                        f"{100 * row['validation_accuracy']:.2f} %",
                        f"{row['images_per_second']:,.0f}",
                    ]
                    for row in rows
                ],
            },
            {"title": "Recipe", "head": ["option", "value"], "rows": list(config.model_dump(mode="json").items())},
        ],
    )
