"""Write the tables of docs/evidence.md, pictures and a page of each study, from the records in `results/studies/`.

python docs/evidence.py            # rewrites docs/evidence.md between its markers, docs/figures/study_*.svg and
                                   # docs/evidence/*.html
python docs/evidence.py --check    # exit code 1 if a table is not what the records say
"""

from __future__ import annotations

import json
import sys
from math import sqrt
from pathlib import Path
from typing import Any

from cost_page import markdown_table
from markers import filled
from pruned import pruned, pruned_picture, pruned_table
from scipy.stats import chi2
from verdicts import RECORDS, ROOT, TEXT, paper_table, studies, verdict_table

from residualdroppath.experiments.compare.table import HEAD as PILOT_HEAD
from residualdroppath.experiments.compare.table import table_rows as pilot_rows
from residualdroppath.experiments.studies.elastic_depth import SELECTIONS
from residualdroppath.experiments.studies.figures import accuracy_over_cost, without_branches
from residualdroppath.experiments.studies.page import write_study_page
from residualdroppath.experiments.studies.recorded import shown_record
from residualdroppath.experiments.studies.reuse_names import QUANTITIES
from residualdroppath.experiments.studies.table import (
    HEAD,
    SLOPE_HEAD,
    TRIES_HEAD,
    difference_text,
    elastic_head,
    elastic_rows,
    reuse_head,
    reuse_rows,
    slope_rows,
    table_rows,
    tries_rows,
)

PILOTS = ("fashion_mnist_overfit", "mnist")
PAGE, FIGURES = Path(__file__).with_name("evidence.md"), Path(__file__).with_name("figures")
PAGES = Path(__file__).with_name("evidence")  # of one study each, copied to the site as they are


def study_table(record: dict[str, Any]) -> str:
    environment = record["environment"]
    seeds = ", ".join(map(str, record["definition"]["seeds"]))
    return (
        markdown_table(HEAD, table_rows(record))
        + f"\n\n`rdp study {record['file']}`, seeds {seeds}, {environment['device']}, "
        + f"torch {environment['versions']['torch']}; {record['comparisons']} comparisons corrected together."
    )


def elastic_table(record: dict[str, Any]) -> str:
    """Accuracy with half of the branches out, and its difference to plain training."""
    rows = elastic_rows(record)
    return markdown_table(elastic_head(record), rows) if rows else "Not measured in this study."


def reuse_table(record: dict[str, Any]) -> str:
    """Each measure of reuse, its paired difference to plain training, and its rank correlation with accuracy."""
    if not (rows := reuse_rows(record)):
        return "Not measured in this study."
    meanings = "; ".join(f"*{name}*: {text}" for name, text in QUANTITIES.items())
    return f"{markdown_table(reuse_head(record), rows)}\n\n{meanings}."


def slope_table(record: dict[str, Any]) -> str:
    return markdown_table(SLOPE_HEAD, slope_rows(record)) if slope_rows(record) else "This study has no grid."


def spread_table(record: dict[str, Any]) -> str:
    """Standard deviations over what was seeded apart, with their 95 % intervals (chi squared)."""
    rows = []
    for row in record["rows"]:
        value = row["test_accuracy"]
        freedom, deviation = value["n"] - 1, 100 * value["std"]
        ends = (deviation * sqrt(freedom / chi2.ppf(part, freedom)) for part in (0.975, 0.025))
        interval = " to ".join(f"{end:.2f}" for end in ends)
        rows.append([row["variant"], str(value["n"]), f"{100 * value['mean']:.2f}", f"{deviation:.2f}", interval])
    head = ["what differs from run to run", "n", "test accuracy (%)", "standard deviation", "95 % interval"]
    return markdown_table(head, rows)


def pilot_table(name: str) -> str:
    """A comparison by `rdp compare`: not tuned, of few seeds."""
    record = json.loads((ROOT / "results" / f"{name}.json").read_text())
    environment = record["environment"]
    return (
        markdown_table(PILOT_HEAD, pilot_rows(record))
        + f"\n\n`{environment['command']}`, seeds {', '.join(map(str, record['config']['seeds']))}, "
        + f"{environment['device']}, torch {environment['versions']['torch']}."
    )


def text_table(record: dict[str, Any]) -> str:
    """The text transformer of benchmarks/text_transformer.py."""
    rows = []
    for name, row in record["rows"].items():
        value = row["test_accuracy"]
        rows.append(
            [
                f"{name} ({', '.join(f'{option} {each}' for option, each in row['chosen'].items())})",
                f"{100 * value['mean']:.2f} ± {100 * value['std']:.2f}",
                str(value["n"]),
                *(difference_text(row["against"].get(other)) for other in ("plain", "drop path")),
                f"{row['reuse']['mean']:.3f}" + _of_reuse(row["reuse"]["minus_plain"], name),
            ]
        )
    environment = record["environment"]
    seeds = ", ".join(map(str, record["seeds"]))
    head = ["variant", "test accuracy (%)", "n", "minus plain", "minus drop path", "reuse; minus plain"]
    return markdown_table(head, rows) + (
        f"\n\n`python benchmarks/{environment['command']}`, seeds {seeds}, {environment['device']}, torch "
        f"{environment['versions']['torch']}; {record['comparisons']} comparisons corrected together."
    )


def _of_reuse(difference: dict[str, Any], variant: str) -> str:
    if variant == "plain":
        return ""
    return f"; {difference['mean']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"


def tries_table(record: dict[str, Any]) -> str:
    return markdown_table(TRIES_HEAD[1:], [row[1:] for row in tries_rows(record)])


TABLES = {
    "study": study_table, "elastic": elastic_table, "reuse": reuse_table, "slopes": slope_table,
    "spread": spread_table, "tries": tries_table,
}  # fmt: skip


def tables(text: str) -> dict[str, str]:
    """Each table that the page has a marker for; every study must have one."""
    found = {
        "verdicts": verdict_table(studies()),
        "paper": paper_table(studies()),
        "text words": text_table(json.loads(TEXT.read_text())),
        **{f"pilot {name}": pilot_table(name) for name in PILOTS},
    }
    for name, record in studies().items():
        found |= {
            f"{kind} {name}": table(record) for kind, table in TABLES.items() if f"<!-- {kind} {name} -->" in text
        }
        if (timed := pruned(name)) is not None:
            found[f"pruned {name}"] = pruned_table(timed)
        first = next((f"{kind} {name}" for kind in ("study", "spread", "tries") if f"{kind} {name}" in found), None)
        if first is None:
            raise SystemExit(f"docs/evidence.md has no marker `<!-- study {name} -->`.")
        found[first] += f'\n\n<a href="{PAGES.name}/{name}.html">Page of this study</a>: all pictures, tries and runs.'
    return found


def with_tables(text: str) -> str:
    return filled(text, tables(text), "docs/evidence.md")


def main() -> int:
    text = PAGE.read_text()
    if "--check" in sys.argv[1:]:
        return 0 if with_tables(text) == text else 1
    PAGE.write_text(with_tables(text))
    for name, record in studies().items():
        pictures = {"cost": accuracy_over_cost(record)}
        pictures |= {f"without_{how}": found for how, found in zip(SELECTIONS, without_branches(record), strict=False)}
        drawings = {kind: picture.svg + "\n" for kind, picture in pictures.items()}
        if (timed := pruned(name)) is not None:
            drawings["pruned"] = pruned_picture(timed, record)
        write_study_page(shown_record(RECORDS / f"{name}.json"), PAGES / f"{name}.html")
        for kind, svg in drawings.items():
            path = FIGURES / f"study_{name}_{kind}.svg"
            if path.name in text:  # all are on the page
                path.write_text(svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
