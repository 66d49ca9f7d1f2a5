"""Write the tables of the README and of pages of docs/, and the figure, from the records in `results/`.

python docs/generate.py            # rewrites pages between markers, docs/cost.md, figures
python docs/generate.py --check    # exit code 1 if a table is not what the records say
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from compatibility_table import compatibility_tables
from cost_page import cost_page, drop_path_table, markdown_table, readme_table
from guide_tables import chosen_table, cost_sentence, elastic_table
from markers import filled
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from training_figures import figures_table
from verdicts import FORMS, studies, verdict_table

from residualdroppath.experiments.studies.drawing import variant_colours
from residualdroppath.reporting.page import COLOURS

ROOT = Path(__file__).parents[1]
COST = ("resnet50d-32-b128-rate0.1", "resnet50d-32-b128-rate0.5")
SHOWN = ("plain", "drop path", *FORMS)
FREEZE_COLOURS = {"parameters": "#0b6fb8", "stop_gradient": "#7db8e0"}


def record(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def cost_records() -> list[dict[str, Any]]:
    return [record(f"bench/{name}") for name in COST]


def coverage_table(result: dict[str, Any]) -> str:
    own = [name for name in result["library_versions"] if name in result["environment"]["versions"]]
    others = [name for name in result["library_versions"] if name not in own]
    groups = {f"{name} {result['library_versions'][name]}": [name] for name in own}
    if others:
        groups[f"{len(others)} further libraries"] = others
    rows = []
    for title, libraries in groups.items():
        files = [row for row in result["rows"] if row["library"] in libraries]
        run = [row["contracts"] for row in files if row["contracts"] is not None]
        rows.append(
            [
                title,
                str(len(files)),
                str(sum(row["passes"] for row in files)),
                f"{sum(run)} of {len(run)} run",
                str(sum(row["found"] for row in files)),
            ]
        )
    head = ["library", "model files", "branches as expected", "contracts hold", "branches found"]
    return markdown_table(head, rows)


def memory_table(result: dict[str, Any]) -> str:
    """What plans keep for the backward over what plain training keeps, by how they are drawn."""
    rows = [
        [
            f"{size}x{size}",
            f"`{draw}`",
            *(
                f"{of_kind[kind][which]:.2f}"
                for of_kind in [own[draw]]
                for kind in ("drop_path", "dropped_part")
                for which in ("mean", "worst")
            ),
        ]
        for size, own in result["saved_over_plain"].items()
        for draw in ("independent", "balanced")
    ]
    config, environment = result["config"], result["environment"]
    head = ["images", "`draw`", "`drop_path`, mean", "worst", "`dropped_part`, mean", "worst"]
    return (
        markdown_table(head, rows)
        + f"\n\n{config['model']}, {config['rate_over_depth']} rates of {config['rate']:g}, "
        + f'`freeze="{config["freeze"]}"`, {config["plans"]} plans of each kind. '
        + f"`python benchmarks/{environment['command']}`"
    )


def tables() -> dict[str, str]:
    """Markdown by the name of its marker in the README."""
    return {
        "table cost": readme_table(cost_records()),
        "table memory": memory_table(record("memory/worst_plan")),
        "table coverage": coverage_table(record("coverage")),
        "table evidence": verdict_table(studies(), "docs/evidence.md"),
    }


def with_tables(text: str) -> str:
    return filled(text, tables(), "README.md")


def draw_figure() -> Figure:
    """Cost on the left, accuracy seed by seed on the right."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_cost(left, cost_records())
    _draw_accuracy(right, studies()["overfit_conv"])
    return figure


def _draw_cost(axes: Axes, of_rates: list[dict[str, Any]]) -> None:
    labels: list[str] = []
    for own in of_rates:
        for kind in ("drop_path", "dropped_part", "mean"):
            for offset, freeze in zip((-0.2, 0.2), FREEZE_COLOURS, strict=True):
                row = own["rows"][freeze]
                ratio = row["per_iteration"] if kind == "mean" else row["by_kind"][kind]
                bar = axes.bar(len(labels) + offset, ratio["mean"], 0.38, color=FREEZE_COLOURS[freeze])
                axes.bar_label(bar, fmt="%.2f", fontsize=8, padding=2)
            labels.append(f"{kind}\nrate {own['config']['rate']:g}")
    axes.axhline(1.0, color=COLOURS["plain"], linestyle="--", linewidth=1)
    axes.text(len(labels) - 0.5, 1.01, "plain", ha="right", va="bottom", color=COLOURS["plain"])
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(0, 1.15)
    axes.set_ylabel("time per iteration / plain")
    axes.set_title(f"Cost of an iteration: {of_rates[0]['config']['model']}")
    for freeze, colour in FREEZE_COLOURS.items():
        axes.bar(0, 0, color=colour, label=f'freeze="{freeze}"')
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_accuracy(axes: Axes, study: dict[str, Any]) -> None:
    """Seeds of plain training, tuned drop path and the forms of the method, all at the cost of plain training."""
    rows = [row for row in study["rows"] if row["variant"] in SHOWN]
    colours = variant_colours({"rows": rows})
    for index, row in enumerate(rows):
        values = [100 * run["test_accuracy"] for run in row["runs"]]
        colour = colours[row["variant"]]
        axes.plot([index] * len(values), values, "o", color=colour, alpha=0.6)
        mean = sum(values) / len(values)
        axes.plot([index - 0.25, index + 0.25], [mean, mean], color=colour, linewidth=3)
        axes.annotate(f"{mean:.2f}", (index + 0.28, mean), va="center", fontsize=8)
    axes.set_xticks(
        range(len(rows)),
        [row["variant"].replace("ResidualDroppath ", "Residual-\nDroppath\n") for row in rows],
        fontsize=8,
    )
    axes.set_xlim(-0.5, len(rows) - 0.3)
    axes.set_ylabel("test accuracy (%)")
    axes.set_title("A network that overfits 2,000 images, tuned, at equal cost")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> int:
    wanted = {
        ROOT / "README.md": with_tables,
        ROOT / "docs" / "cost.md": lambda text: cost_page(ROOT / "results" / "bench"),
        ROOT / "docs" / "compatibility.md": lambda text: filled(text, compatibility_tables(), "docs/compatibility.md"),
        ROOT / "docs" / "training.md": lambda text: filled(text, {"figures": figures_table()}, "docs/training.md"),
    }
    wanted[ROOT / "docs" / "drop_path.md"] = lambda text: filled(
        text, {"table drop_path": drop_path_table(ROOT / "results" / "bench")}, "docs/drop_path.md"
    )
    guides = ROOT / "docs" / "guides"
    chosen, elastic = chosen_table(studies()), elastic_table(studies()["overfit_conv"])
    wanted[guides / "rate_and_form.md"] = lambda text: filled(text, {"table chosen": chosen}, "rate_and_form.md")
    wanted[guides / "elastic_depth.md"] = lambda text: filled(text, {"table elastic": elastic}, "elastic_depth.md")
    home = {"cost": cost_sentence(cost_records()), "table chosen": chosen}
    wanted[ROOT / "docs" / "README.md"] = lambda text: filled(text, home, "docs/README.md")
    texts = {page: page.read_text() for page in wanted}
    made = {page: make(texts[page]) for page, make in wanted.items()}
    if "--check" in sys.argv[1:]:
        return 0 if made == texts else 1
    for page, text in made.items():
        page.write_text(text)
    draw_figure().savefig(ROOT / "docs" / "figures" / "cost_and_accuracy.png", dpi=130)
    return 0


if __name__ == "__main__":
    sys.exit(main())
