"""The table of a bench, its chart, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from ...records.files import Taken, replacing, write_record
from ...reporting.page import COLOURS
from .config import OURS, TITLES

HEAD = [
    "contender", "per iteration", "95 % interval", "per cycle", "drop_path", "dropped_part", "floor", "time / floor",
    "FLOPs", "kept: drop_path", "kept: dropped_part",
]  # fmt: skip
LEGEND = (
    "All relative to a plain iteration. Per cycle: per update of the trunk. Floor: the time of what the plans need, "
    "its parts timed apart. Kept: bytes of tensors kept for the backward, over plain training's, mean (worst plan). "
    "*Ours at rate 0*: installed, nothing dropped; *computing everything*: the method by masks, nothing skipped."
)


def table_rows(record: dict[str, Any]) -> list[list[str]]:
    """One list of texts per contender, in the order of `HEAD`; a dash where there is no such figure."""
    return [_cells(name, row) for name, row in record["rows"].items()]


def title(record: dict[str, Any]) -> str:
    """The set-up in one line."""
    config, environment = record["config"], record["environment"]
    name = config["model"]
    if name == "small_resnet":
        name += f" {config['depth']}x{config['width']}"
    size = config["image_size"]
    flags = [flag.replace("_", "-") for flag in ("channels_last", "compile", "fused") if config[flag]]
    return ", ".join(
        [
            f"{name}, {size}x{size}, batch {config['batch_size']}",
            f"{config['rate_over_depth']} rate {config['rate']:g}",
            *([config["dtype"]] if config["dtype"] != "float32" else []),
            *flags,
            f"{config['optimizer']}, {config['plans']} plans",
            environment["device"],
        ]
    )


def terminal_table(record: dict[str, Any]) -> Table:
    """Headings wrap between their words, figures do not."""
    table = Table(title=title(record), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    rows = table_rows(record)
    used = [index for index in range(len(HEAD)) if index == 0 or any(row[index] != "-" for row in rows)]
    for index in used:
        table.add_column(HEAD[index], justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(row[index] for index in used))
    return table


def draw_chart(record: dict[str, Any]) -> Figure:
    """A bar per contender, with its interval, its floor and its FLOPs."""
    rows = list(record["rows"].items())
    figure = Figure(figsize=(9, 1.6 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    longest = max(row["per_iteration"]["high"] for _, row in rows)
    for place, (name, row) in enumerate(reversed(rows)):
        ratio = row["per_iteration"]
        width = ratio["high"] - ratio["mean"]
        axes.barh(place, ratio["mean"], 0.62, xerr=width, color=_colour(name), error_kw={"lw": 1.2, "capsize": 3})
        axes.text(0.015 * longest, place, f"{ratio['mean']:.2f}", va="center", color="white", weight="bold")
        if row["floor"]:
            axes.plot([row["floor"]] * 2, [place - 0.38, place + 0.38], color="black", linewidth=2)
        if row["counts"]:
            axes.plot(
                row["counts"]["flops"], place, "D", markerfacecolor="white", markeredgecolor="black", markersize=6
            )
    axes.axvline(1.0, color=COLOURS["plain"], linestyle="--", linewidth=1, zorder=0)
    axes.set_yticks(range(len(rows)), [_title_of(name) for name, _ in reversed(rows)])
    axes.set_xlim(0, 1.04 * longest)
    axes.set_xlabel("time per iteration / plain")
    axes.set_title(title(record), fontsize=10)
    handles = []
    if any(row["floor"] for _, row in rows):
        handles += axes.plot([], [], "|", color="black", markersize=14, markeredgewidth=2, label="floor, measured")
    if any(row["counts"] for _, row in rows):
        handles += axes.plot([], [], "D", markerfacecolor="white", markeredgecolor="black", label="FLOPs, counted")
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def write_files(record: dict[str, Any], out: Path, *, new: bool = False) -> Path:
    """`out` as JSON, and the chart beside it as PNG, whose path is returned.

    With `new` nothing is replaced: raises `Taken` if something is there by then, both kept under a free name.
    """
    try:
        write_record(out, record, new=new)
    except Taken as taken:
        _write_chart(record, taken.kept, new=new)
        raise
    return _write_chart(record, out, new=new)


def _write_chart(record: dict[str, Any], out: Path, *, new: bool) -> Path:
    chart = out.with_suffix(".png")
    with replacing(chart, new=new) as partial:
        draw_chart(record).savefig(partial, format="png", dpi=130)
    return chart


def _cells(name: str, row: dict[str, Any]) -> list[str]:
    ratio, kinds, counts = row["per_iteration"], row["by_kind"], row["counts"]
    plain = name == "plain"

    def saved(kind: str) -> str:
        if not counts or kind not in counts["saved"]:
            return "-"
        return f"{counts['saved'][kind]:.2f} ({counts['saved_worst'][kind]:.2f})"

    return [
        _title_of(name),
        f"{ratio['mean']:.2f}",
        "-" if plain else f"{ratio['low']:.2f} to {ratio['high']:.2f}",
        f"{row['per_cycle']['mean']:.2f}",
        *(f"{kinds[kind]['mean']:.2f}" if kind in kinds else "-" for kind in ("drop_path", "dropped_part")),
        f"{row['floor']:.2f}" if row["floor"] else "-",
        f"{row['over_floor']:.2f}" if row["over_floor"] else "-",
        f"{counts['flops']:.2f}" if counts else "-",
        saved("drop_path"),
        saved("dropped_part"),
    ]


def _title_of(name: str) -> str:
    return next(text for contender, text in TITLES.items() if contender == name)


def _colour(name: str) -> str:
    if name in (*OURS, "rate_zero"):
        return COLOURS["residual_drop_path"]
    return COLOURS["drop_path"] if name in ("timm", "torchvision") else COLOURS["plain"]
