"""The residual branches of a network as a table and lines for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

WIDTH = 100
NAME_WIDTH = 25
BLOCK_WIDTH = 16
WORDS_WIDTH = 10
MOST_REASONS = 5


def branches_page(record: dict[str, Any]) -> Iterator[Table | Text]:
    """What to print, part by part."""
    yield _heading(record["model"])
    yield branches_table(record)
    totals = record["totals"]
    yield Text()
    yield Text(_totals_line(totals))
    yield Text("eff. rate: in draws that a dropped_part iteration trains, which drop at least one branch")
    if totals["flops_note"]:
        yield Text(f"share of FLOPs: {totals['flops_note']}")
    for title, reasons in (
        ("left aside", record["rejected_adds"]),
        ("not traced, taken as trunk unless its parts are above", record["untraceable"]),
    ):
        if reasons:
            yield Text(f"{title} ({len(reasons)}):")
            for name, reason in list(reasons.items())[:MOST_REASONS]:
                yield _one_line(f"  {name}: {reason}")
            if len(reasons) > MOST_REASONS:
                yield Text(f"  and {len(reasons) - MOST_REASONS} more; --json lists all")
    if shared := record["shared_parameters"]:
        more = f" and {len(shared) - MOST_REASONS} more" if len(shared) > MOST_REASONS else ""
        yield _one_line(f"shared by several places, taken as trunk ({len(shared)}): " + ", ".join(shared[:5]) + more)


def branches_table(record: dict[str, Any]) -> Table:
    """One line for each branch; its texts are cut so that the figures, up to 99,999,999, always have their place."""
    rows = record["branches"]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("branch", "block"):
        table.add_column(name, overflow="fold")
    for name in ("drop\nrate", "eff.\nrate", "parameters", "% of\nFLOPs"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("shortcut", "then"):
        table.add_column(name)
    for name, row in zip(short_names([row["name"] for row in rows]), rows, strict=True):
        table.add_row(
            name,
            _cut(row["block"], BLOCK_WIDTH),
            f"{row['drop_rate']:.3f}",
            f"{row['effective_rate']:.3f}",
            f"{row['parameters']:,}",
            _percent(row["share_of_flops"]).removesuffix(" %"),
            _cut(row["shortcut"], WORDS_WIDTH),
            _cut(row["follows"] or "-", WORDS_WIDTH),
        )
    return table


def short_names(names: list[str], width: int = NAME_WIDTH) -> list[str]:
    """Module paths with their middle left out where they are longer; as they are if two would look the same."""
    short = [_short_name(name, width) for name in names]
    return short if len(set(short)) == len(set(names)) else names


def _short_name(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    first, *rest = name.split(".")
    while len(rest) > 1 and len(first) + 1 + len(".".join(rest)) > width:
        rest.pop(0)
    return f"{first}…{'.'.join(rest)}"


def _heading(model: dict[str, Any]) -> Text:
    inputs = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in (model["inputs"] or {}).items())
    options = f" with {model['options']}" if model["options"] else ""
    return Text(
        f"{model['name']} ({model['class']}){options}"
        + (f", {inputs}" if inputs else "")
        + f"; drop path rate {model['drop_path_rate']:g}, {model['rate_over_depth']} over depth\n"
    )


def _totals_line(totals: dict[str, Any]) -> str:
    flops = ""
    if totals["flops"] is not None:
        flops = f", {_percent(totals['share_of_flops'])} of {_short_number(totals['flops'])} FLOPs"
    parameters = totals["parameters"]
    share = totals["parameters_in_branches"] / parameters if parameters else None
    return (
        f"{totals['branches']} residual branches in {totals['blocks']} blocks: "
        f"{totals['parameters_in_branches']:,} of {parameters:,} parameters ({_percent(share)}){flops}"
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _one_line(text: str) -> Text:
    return Text(_cut(text.replace("\n", " "), WIDTH))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _short_number(number: int) -> str:
    value, units = float(number), iter(("", " k", " M", " G", " T", " P"))
    unit = next(units)
    while value >= 1000 and (larger := next(units, None)) is not None:
        value, unit = value / 1000, larger
    return f"{value:.3g}{unit}"
