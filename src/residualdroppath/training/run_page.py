"""The page of one run: its curves, a table of epochs, and its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..reporting.page import COLOURS, CONTROL_COLOUR, write_page
from .recipe import TrainConfig
from .run_folder import RunFolder


def write_run_page(folder: RunFolder, config: TrainConfig, result: dict[str, Any]) -> Path:
    """`curves.png` and `index.html` of one run."""
    from matplotlib.figure import Figure  # only when there is something to draw

    from ..reporting.axes import finish_axes

    rows = folder.metrics()
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    colour = COLOURS.get(config.method, CONTROL_COLOUR)
    for axes, quantity, factor in ((left, "loss", 1), (right, "accuracy", 100)):
        for part, style in (("train", ":"), ("validation", "-")):
            seen = [row for row in rows if f"{part}_{quantity}" in row]
            values = [factor * row[f"{part}_{quantity}"] for row in seen]
            axes.plot(
                [row["epoch"] for row in seen],
                values,
                style,
                color=colour,
                label=part,
                marker="." if len(rows) < 3 else "",
            )
        finish_axes(axes, "epoch", "cross-entropy (nats)" if quantity == "loss" else "accuracy (%)")
    part = "test" if "test_accuracy" in result else "validation"
    accuracy = f"{part} accuracy {100 * result[f'{part}_accuracy']:.2f} %"
    return write_page(
        folder.path,
        figure,
        title=f"{config.method} on {Path(config.data).name}: {accuracy}",
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
                        *_validation(row),
                        f"{row['images_per_second']:,.0f}",
                    ]
                    for row in rows
                ],
            },
            {
                "title": "Recipe",
                "head": ["option", "value"],
                "rows": list(config.model_dump(mode="json").items()),
                "details": True,
            },
        ],
    )


def _validation(row: dict[str, Any]) -> list[str]:
    if "validation_loss" not in row:
        return ["-", "-"]
    return [f"{row['validation_loss']:.4f}", f"{100 * row['validation_accuracy']:.2f} %"]
