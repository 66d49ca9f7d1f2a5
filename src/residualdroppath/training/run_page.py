"""The page of one run: its curves, a table of epochs, and its recipe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..reporting.page import COLOURS, CONTROL_COLOUR, write_page
from .recipe import TrainConfig
from .run_folder import RunFolder

# Of the validation images, if a run has them.
COLUMNS = {
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
    "validation_top5_accuracy": "of five",
    "ema_validation_loss": "loss of the average",
    "ema_validation_accuracy": "accuracy of the average",
}
PAGE_SECONDS = 10.0  # from one drawing of the page to the next while a run goes on
REFRESH = 15  # seconds after which a browser loads it again


class LivePage:
    """The page of a run that goes on, drawn anew after an epoch, if some time has passed."""

    def __init__(self, folder: RunFolder, config: TrainConfig, facts: dict[str, Any], epochs: int):
        """`facts` are those of the result that are known before the end: `parameters`, `train_images`."""
        self.folder, self.config, self.facts, self.epochs = folder, config, facts, epochs
        self.drawn = time.monotonic()

    def write(self, row: dict[str, Any]) -> None:
        if time.monotonic() - self.drawn < PAGE_SECONDS or row["epoch"] == self.epochs:
            return
        write_run_page(self.folder, self.config, {**self.facts, "iterations": row["iteration"]}, self.epochs)
        self.drawn = time.monotonic()


def write_run_page(
    folder: RunFolder, config: TrainConfig, result: dict[str, Any], unfinished: int | None = None
) -> Path:
    """`curves.png` and `index.html` of one run; of one that is to have `unfinished` epochs, what there is so far."""
    from matplotlib.figure import Figure  # only when there is something to draw

    from ..reporting.axes import finish_axes

    rows = folder.metrics()
    shown = {name: head for name, head in COLUMNS.items() if any(name in row for row in rows)}
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
    return write_page(
        folder.path,
        figure,
        title=f"{config.method} on {Path(config.data).name}: {_state(rows, result, unfinished)}",
        lines=[
            f"{config.model}, {result['parameters']:,} parameters, {result['train_images']:,} training images, "
            f"{result['iterations']:,} iterations, seed {config.seed}. Training accuracy is measured while training, "
            "dropped branches and augmentation included."
        ],
        tables=[
            {
                "title": "Epochs",
                "head": ["epoch", "train loss", "train accuracy", *shown.values(), "images/s"],
                "rows": [
                    [
                        row["epoch"],
                        f"{row['train_loss']:.4f}",
                        f"{100 * row['train_accuracy']:.2f} %",
                        *(_number(name, row) for name in shown),
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
        refresh=None if unfinished is None else REFRESH,
    )


def _state(rows: list[dict[str, Any]], result: dict[str, Any], unfinished: int | None) -> str:
    """The accuracy that a run came to, or how far it is."""
    if unfinished is not None:
        return f"epoch {rows[-1]['epoch']} of {unfinished}"
    part = "test" if "test_accuracy" in result else "validation"
    return f"{part} accuracy {100 * result[f'{part}_accuracy']:.2f} %"


def _number(name: str, row: dict[str, Any]) -> str:
    if name not in row:
        return "-"
    return f"{row[name]:.4f}" if name.endswith("_loss") else f"{100 * row[name]:.2f} %"
