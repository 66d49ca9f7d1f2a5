"""The table of a study, in the terminal and as rows of its page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.table import Table

from .elastic_depth import SELECTIONS

Row = dict[str, Any]
TRIES_HEAD = ["variant", "try", "validation accuracy (%)", "minus the first try", "cost of an iteration"]
SLOPE_HEAD = ["variant", "doubling", "changes the gain over plain by (points)", "95 % interval", "p", "seeds"]
HEAD = ["variant", "test accuracy (%)", "n", "95 % interval", "minus plain", "minus drop path", "cost", "shows"]


def table_rows(record: Row) -> list[list[str]]:
    """One list of texts per row, in the order of `HEAD`."""
    return [
        [
            row_name(row, budgets=several_budgets(record["rows"])),
            with_deviation(row["test_accuracy"]),
            str(row["test_accuracy"]["n"]),
            interval_text(row["test_accuracy"]),
            difference_text(row["against"].get("plain")),
            difference_text(row["against"].get("drop_path")),
            "-" if row["total_cost"] is None else f"{row['total_cost']:.2f}",
            "; ".join(row["signatures"]),
        ]
        for row in record["rows"]
    ]


def tries_rows(record: Row) -> list[list[str]]:
    """What each variant was tuned over, in the order of `TRIES_HEAD`; records from before 2026-12 hold means alone."""
    several = several_budgets(record["rows"])
    rows = []
    for row in record["rows"]:
        for each in row["tries"]:
            mean = each["validation_accuracy"]
            over_seeds = each.get("over_seeds") or {"mean": mean, "std": None}
            cost = each.get("cost")
            rows.append(
                [
                    row_name(row, budgets=several, chosen=False),
                    ", ".join(f"{name} {value}" for name, value in each["values"].items()) or "as it is",
                    with_deviation(over_seeds) + (" (chosen)" if each["values"] == row["chosen"] else ""),
                    difference_text(each.get("minus_first")),
                    "-" if cost is None else f"{cost:.2f}",
                ]
            )
    return rows


def elastic_head(record: Row) -> list[str]:
    """Columns of `elastic_rows`; none where elastic depth was not measured."""
    measured = [row["elastic_depth"] for row in record["rows"] if "elastic_depth" in row]
    if not measured:
        return []
    counts = {each["branches"] for each in measured}
    images = ", ".join(f"{count:,}" for count in sorted({each["test_images"] for each in measured}))
    out = "without " + ", ".join(f"{count // 2} of {count}" for count in sorted(counts))
    return ["variant", f"whole (%), {images} test images", *(f"{out}, {how} (%); minus plain" for how in SELECTIONS)]


def elastic_rows(record: Row) -> list[list[str]]:
    """Test accuracy with half of the branches out, by how they are picked, and its paired difference to plain."""
    several = several_budgets(record["rows"])
    rows = []
    for row in record["rows"]:
        if elastic := row.get("elastic_depth"):
            cells = [row_name(row, budgets=several, chosen=False), with_deviation(elastic["whole"])]
            for how in SELECTIONS:
                if not elastic[how]:  # of one branch, none is half
                    cells.append("-")
                    continue
                difference = difference_text(elastic["half_minus_plain"].get(how))
                cells.append(with_deviation(elastic[how][-1]) + ("" if difference == "-" else f"; {difference}"))
            rows.append(cells)
    return rows


def reuse_head(record: Row) -> list[str]:
    """Columns of `reuse_rows`; none where reuse was not measured."""
    return ["variant", "test accuracy (%)", *record["reuse_and_accuracy"]] if record.get("reuse_and_accuracy") else []


def reuse_rows(record: Row) -> list[list[str]]:
    """Each measure of feature reuse with its paired difference to plain training; the last row: the rank correlation
    of its means with those of test accuracy."""
    names = record.get("reuse_and_accuracy") or {}
    several = several_budgets(record["rows"])
    rows = []
    for row in record["rows"]:
        if found := row.get("feature_reuse"):
            cells = [_number(found[name]) for name in names]
            name = row_name(row, budgets=several, chosen=False)
            rows.append([name, with_deviation(row["test_accuracy"]), *cells])
    if rows:
        rows.append(["rank correlation with test accuracy, over variants", "", *map(_correlation, names.values())])
    return rows


def slope_rows(record: Row) -> list[list[str]]:
    """How the gain over plain training changes with what the grid of the study varies, in the order of `SLOPE_HEAD`."""
    several = several_budgets(record["rows"])
    return [
        [
            each["variant"] + (f", equal {each['budget'].replace('_', ' ')}" if several else ""),
            each["option"].replace("_", " "),
            f"{100 * each['mean']:+.2f}",
            "-" if each["low"] is None else f"{100 * each['low']:+.2f} to {100 * each['high']:+.2f}",
            "-" if each["p"] is None else p_text(each["p"]),
            str(each["n"]),
        ]
        for each in record.get("slopes", [])
    ]


def _number(value: Row) -> str:
    text = f"{value['mean']:.3g}"
    difference = value.get("minus_plain")
    if difference and difference["mean"] is not None:
        text += f"; {difference['mean']:+.2g}"
        if difference["low"] is not None:
            text += f" ({difference['low']:+.2g} to {difference['high']:+.2g})"
    return text


def _correlation(value: Row) -> str:
    return "-" if value["rho"] is None else f"{value['rho']:+.2f} (n {value['n']}, p {p_text(value['p'])})"


def terminal_tables(record: Row) -> list[Table]:
    """The table of the study; and that of branches taken out, where it was measured."""
    title = f"{record['study']}: {record['question']}  ({budgets_text(record)})"
    tables = [_terminal_table(title, HEAD, table_rows(record))]
    if rows := elastic_rows(record):
        tables.append(_terminal_table("With branches taken out after training", elastic_head(record), rows))
    return tables


def _terminal_table(title: str, head: list[str], rows: list[list[str]]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in head:
        table.add_column(name, justify="left" if name in ("variant", "shows") else "right")
    for cells in rows:
        table.add_row(*cells)
    return table


def several_budgets(rows: Iterable[Row]) -> bool:
    """Whether their names have to tell them apart."""
    return len({row["budget"] for row in rows}) > 1


def budgets_text(record: Row) -> str:
    names = dict.fromkeys(row["budget"].replace("_", " ") for row in record["rows"])
    return "equal " + " and ".join(names) if names else "nothing has ended yet"


def row_name(row: Row, *, budgets: bool, chosen: bool = True) -> str:
    at = ", ".join(f"{name} {value}" for name, value in row["point"].items())
    settings = ", ".join(f"{name} {value}" for name, value in row["chosen"].items()) if chosen else ""
    text = row["variant"] + (f", equal {row['budget'].replace('_', ' ')}" if budgets else "")
    return text + (f", {at}" if at else "") + (f" ({settings})" if settings else "")


def with_deviation(value: Row) -> str:
    if value["mean"] is None:
        return "-"
    return f"{100 * value['mean']:.2f}" + ("" if value["std"] is None else f" ± {100 * value['std']:.2f}")


def interval_text(value: Row) -> str:
    return "-" if value["low"] is None else f"{100 * value['low']:.2f} to {100 * value['high']:.2f}"


def difference_text(value: Row | None) -> str:
    """Mean of the paired differences in points, their interval, and p after Holm's correction."""
    if value is None or value["mean"] is None:
        return "-"
    text = f"{100 * value['mean']:+.2f}"
    if value["low"] is not None:
        text += f" ({100 * value['low']:+.2f} to {100 * value['high']:+.2f})"
    if value.get("p_holm") is not None:
        text += f" p {p_text(value['p_holm'])}"
    return text


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
