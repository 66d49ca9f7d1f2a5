"""Pages that people open: curves as PNG, and one HTML file with a table beside them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..records.files import write_text
from .config import TrainConfig
from .run_folder import RunFolder

TEMPLATE = jinja2.Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
img { max-width: 100%; height: auto }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
thead th { border-bottom: 2px solid #444 }
</style>
<h1>{{ title }}</h1>
{% for line in lines %}<p>{{ line }}</p>{% endfor %}
<img alt="Training curves" src="data:image/png;base64,{{ image }}">
{% for table in tables %}
<h2>{{ table.title }}</h2>
<div class="wide"><table>
<thead><tr>{% for name in table.head %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}
</html>
""")
COLOURS = {"plain": "#555555", "drop_path": "#d08c00", "residual_drop_path": "#0b6fb8"}


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


def write_page(folder: Path, figure: Figure, *, title: str, lines: list[str], tables: list[dict[str, Any]]) -> Path:
    """Write `curves.png` and the self-contained `index.html`, and return the latter's path."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    (folder / "curves.png").write_bytes(buffer.getvalue())
    image = base64.b64encode(buffer.getvalue()).decode()
    page = folder / "index.html"
    write_text(page, TEMPLATE.render(title=title, lines=lines, tables=tables, image=image))
    return page


def finish_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
