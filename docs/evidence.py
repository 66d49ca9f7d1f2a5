"""Write the tables of docs/evidence.md, and pictures of each study, from the records in `results/studies/`.

python docs/evidence.py            # rewrites docs/evidence.md between its markers, and docs/figures/study_*.svg
python docs/evidence.py --check    # exit code 1 if a table is not what the records say
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from cost_page import markdown_table

from residualdroppath.experiments.studies.elastic_depth import SELECTIONS
from residualdroppath.experiments.studies.figures import accuracy_over_cost, without_branches
from residualdroppath.experiments.studies.table import HEAD, difference_text, table_rows, with_deviation

ROOT = Path(__file__).parents[1]
PAGE, FIGURES = ROOT / "docs" / "evidence.md", ROOT / "docs" / "figures"


def studies() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "results" / "studies").glob("*.json"))}


def study_table(record: dict[str, Any]) -> str:
    environment = record["environment"]
    seeds = ", ".join(map(str, record["definition"]["seeds"]))
    return (
        markdown_table(HEAD, table_rows(record))
        + f"\n\n`{environment['command']}`, seeds {seeds}, {environment['device']}, "
        + f"torch {environment['versions']['torch']}; {record['comparisons']} comparisons corrected together."
    )


def elastic_table(record: dict[str, Any]) -> str:
    """Accuracy with half of the branches out, and its difference to plain training."""
    rows = []
    for row in record["rows"]:
        if elastic := row.get("elastic_depth"):
            cells = [row["variant"], with_deviation(row["test_accuracy"])]
            for how in SELECTIONS:
                difference = difference_text(elastic["half_minus_plain"].get(how))
                cells.append(with_deviation(elastic[how][-1]) + ("" if difference == "-" else f"; {difference}"))
            rows.append(cells)
    if not rows:
        return "Not measured in this study."
    count = next(row["elastic_depth"]["branches"] for row in record["rows"] if "elastic_depth" in row)
    out = f"without {count // 2} of {count}"
    return markdown_table(["variant", "whole (%)", *(f"{out}, {how} (%); minus plain" for how in SELECTIONS)], rows)


def with_tables(text: str) -> str:
    for name, record in studies().items():
        for kind, table in (("study", study_table(record)), ("elastic", elastic_table(record))):
            marked = re.compile(rf"(<!-- {kind} {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            if kind == "study" and not marked.search(text):
                raise SystemExit(f"docs/evidence.md has no marker `<!-- study {name} -->`.")
            text = marked.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
    return text


def main() -> int:
    text = PAGE.read_text()
    if "--check" in sys.argv[1:]:
        return 0 if with_tables(text) == text else 1
    PAGE.write_text(with_tables(text))
    for name, record in studies().items():
        pictures = {"cost": accuracy_over_cost(record)}
        pictures |= {f"without_{how}": found for how, found in zip(SELECTIONS, without_branches(record), strict=False)}
        for kind, picture in pictures.items():
            (FIGURES / f"study_{name}_{kind}.svg").write_text(picture.svg + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
