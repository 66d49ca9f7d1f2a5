"""Short tables of the guides and of the home page, from the records of studies and of `rdp bench`."""

from __future__ import annotations

from typing import Any

from cost_page import markdown_table
from verdicts import FORMS, SETTINGS, text_study

from residualdroppath.experiments.bench.config import OURS
from residualdroppath.experiments.studies.elastic_depth import SELECTIONS
from residualdroppath.experiments.studies.signatures import significant
from residualdroppath.experiments.studies.table import elastic_head, elastic_rows

Record = dict[str, Any]
ELASTIC = (
    "drop path",
    "ResidualDroppath (4, 1) union",
    "drop path per sample",
    "ResidualDroppath (4, 1) union per sample",
)


def chosen_table(records: dict[str, Record]) -> str:
    """By study and form, the drop rate that tuning chose, and the gain over plain training."""
    shown = ("drop path", *FORMS)
    rows = []
    records = {**records, "text": text_study()}
    for name, title in SETTINGS.items():
        by_variant = {row["variant"]: row for row in records[name]["rows"]}
        train, test = (100 * by_variant["plain"][f"{part}_accuracy"]["mean"] for part in ("train", "test"))
        rows.append([title, f"{train:.0f} / {test:.0f}"])
        rows[-1] += [_gain(by_variant[form]) if form in by_variant else "-" for form in shown]
    return markdown_table(["study", "plain: training / test (%)", *(f"{form}: rate, gain" for form in shown)], rows)


def _gain(row: Record) -> str:
    against = row["against"]["plain"]
    gain = f"{100 * against['mean']:+.1f}"
    return f"{_rate(row):g}: {f'**{gain}**' if significant(against) else gain}"


def _rate(row: Record) -> float:
    chosen = row["chosen"].get("drop_path_rate", row["chosen"].get("rate"))
    return row["runs"][0]["recipe"]["drop_path_rate"] if chosen is None else chosen


def elastic_table(record: Record) -> str:
    """What is left without four of nine branches, minus plain training; in the forms that one would choose from."""
    rows = [row for row in elastic_rows(record) if row[0] in ("plain", *ELASTIC)]
    shown = 2 + SELECTIONS.index("worst")
    return markdown_table(elastic_head(record)[:shown], [row[:shown] for row in rows])


def cost_sentence(records: list[Record]) -> str:
    """Time of an iteration relative to plain training over rates and kinds of `freeze`, in one line."""
    ours = [record["rows"][name] for record in records for name in OURS if name in record["rows"]]
    iteration, cycle = (sorted(row[unit]["mean"] for row in ours) for unit in ("per_iteration", "per_cycle"))
    return (
        f"**Cost.** An iteration takes {iteration[0]:.2f} to {iteration[-1]:.2f} of a plain one, "
        f"an update of the trunk {cycle[0]:.2f} to {cycle[-1]:.2f} "
        f"({records[0]['config']['model']} on a CPU, uniform rates of "
        f"{' and '.join(format(record['config']['rate'], 'g') for record in records)}): "
        "dropped branches do not run, frozen ones get no weight gradient. [All measurements](cost.md)."
    )
