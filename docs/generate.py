"""Write the tables and the figure of the README from the records in `results/`.

python docs/generate.py            # rewrites README.md between its markers, and docs/figures/
python docs/generate.py --check    # exit code 1 if a table in README.md is not what the records say
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from residualdroppath.experiments.table import HEAD, table_rows
from residualdroppath.training.page import COLOURS

ROOT = Path(__file__).parents[1]
COST = "iteration_cost_resnet50d_cpu"
COMPARISONS = ("mnist", "fashion_mnist_overfit")
FREEZE_COLOURS = {"parameters": "#0b6fb8", "stop_gradient": "#7db8e0"}


def record(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def comparison_table(summary: dict[str, Any]) -> str:
    head = [*HEAD, "train accuracy (%)"]
    rows = [
        [*cells, f"{100 * row['train_accuracy']['mean']:.2f}"]
        for cells, row in zip(table_rows(summary), summary["rows"], strict=True)
    ]
    environment = summary["environment"]
    return (
        markdown_table(head, rows)
        + f"\n\n`{environment['command']}`, seeds {', '.join(map(str, summary['config']['seeds']))}, "
        + f"{environment['device']}, torch {environment['versions']['torch']}."
    )


def cost_table(result: dict[str, Any]) -> str:
    kinds = ("drop_path", "dropped_part", "per_iteration", "per_cycle")
    rows = [
        [rate, f"`{freeze}`", *(f"{own[kind]:.2f}" for kind in kinds)]
        for rate, by_freeze in result["relative_to_plain"].items()
        for freeze, own in by_freeze.items()
    ]
    head = ["drop rate", "`freeze`", "`drop_path`", "`dropped_part`", "per iteration", "per cycle"]
    config, environment = result["config"], result["environment"]
    return (
        markdown_table(head, rows)
        + f"\n\n{config['model']}, {config['image_size']}x{config['image_size']}, batch {config['batch_size']}, "
        + f"{config['rate_over_depth']} rates, {config['plans']} plans, {environment['device']}, "
        + f"{environment['threads']} threads, torch {environment['versions']['torch']}."
    )


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def tables() -> dict[str, str]:
    """Markdown by the name that its marker in the README has."""
    return {COST: cost_table(record(COST)), **{name: comparison_table(record(name)) for name in COMPARISONS}}


def with_tables(text: str) -> str:
    """README text with each `<!-- table NAME -->` ... `<!-- end -->` filled in."""
    for name, table in tables().items():
        marked = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marked.search(text):
            raise SystemExit(f"README.md has no marker for the table {name}.")
        text = marked.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
    return text


def draw_figure() -> Figure:
    """Cost on the left, accuracy seed by seed on the right."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_cost(left, record(COST))
    _draw_accuracy(right, record("fashion_mnist_overfit"))
    return figure


def _draw_cost(axes: Axes, result: dict[str, Any]) -> None:
    labels: list[str] = []
    for rate, by_freeze in result["relative_to_plain"].items():
        for kind, title in (("drop_path", "drop_path"), ("dropped_part", "dropped_part"), ("per_iteration", "mean")):
            for offset, (freeze, own) in zip((-0.2, 0.2), by_freeze.items(), strict=True):
                bar = axes.bar(len(labels) + offset, own[kind], 0.38, color=FREEZE_COLOURS[freeze])
                axes.bar_label(bar, fmt="%.2f", fontsize=8, padding=2)
            labels.append(f"{title}\nrate {rate}")
    axes.axhline(1.0, color=COLOURS["plain"], linestyle="--", linewidth=1)
    axes.text(len(labels) - 0.5, 1.01, "plain", ha="right", va="bottom", color=COLOURS["plain"])
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(0, 1.15)
    axes.set_ylabel("time per iteration / plain")
    axes.set_title(f"Cost of an iteration: {result['config']['model']}")
    for freeze, colour in FREEZE_COLOURS.items():
        axes.bar(0, 0, color=colour, label=f'freeze="{freeze}"')
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_accuracy(axes: Axes, summary: dict[str, Any]) -> None:
    names = []
    for index, row in enumerate(summary["rows"]):
        values = [100 * value for value in row["test_accuracy"]["values"]]
        colour = COLOURS[row["method"]]
        axes.plot([index] * len(values), values, "o", color=colour, alpha=0.6)
        mean = sum(values) / len(values)
        axes.plot([index - 0.25, index + 0.25], [mean, mean], color=colour, linewidth=3)
        axes.annotate(f"{mean:.2f}", (index + 0.28, mean), va="center", fontsize=8)
        equal = "equal cost" if row["equal"] == "cost" else "equal iterations"
        names.append(row["method"] if row["method"] == "plain" else f"{row['method']}\n{equal}")
    axes.set_xticks(range(len(names)), names, fontsize=7.5)
    axes.set_xlim(-0.5, len(names) - 0.3)
    axes.set_ylabel("test accuracy (%)")
    axes.set_title("A network that overfits: Fashion-MNIST, 5,000 images")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text()
    if "--check" in sys.argv[1:]:
        return 0 if with_tables(text) == text else 1
    readme.write_text(with_tables(text))
    draw_figure().savefig(ROOT / "docs" / "figures" / "cost_and_accuracy.png", dpi=130)
    return 0


if __name__ == "__main__":
    sys.exit(main())
