"""The page of a study: one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ...records.files import write_text
from ...reporting.page import template
from .commands import study_command, train_command
from .drawing import variant_colours
from .figures import pictures
from .reuse_names import QUANTITIES
from .table import (
    SLOPE_HEAD,
    TRIES_HEAD,
    budgets_text,
    difference_text,
    elastic_head,
    elastic_rows,
    interval_text,
    p_text,
    reuse_head,
    reuse_rows,
    row_name,
    several_budgets,
    slope_rows,
    tries_rows,
    with_deviation,
)

TEMPLATE = template(Path(__file__).with_suffix(".html"))
Row = dict[str, Any]
HEAD = [
    "variant", "test accuracy", "minus plain", "minus drop path", "n", "validation", "training", "iterations",
    "total cost",
]  # fmt: skip


def write_study_page(record: Row, path: Path) -> Path:
    """Write the page and return its path."""
    several = several_budgets(record["rows"])
    colours = variant_colours(record)
    html = TEMPLATE.render(
        record=record,
        setting=_setting(record),
        problems=_problems(record),
        head=HEAD,
        rows=[_row(row, record, several, colours[row["variant"]]) for row in record["rows"]],
        tested=_tested(record),
        pictures=pictures(record),
        elastic=(elastic_head(record), elastic_rows(record)),
        reuse=(reuse_head(record), reuse_rows(record)),
        reuse_names=QUANTITIES,
        slopes=(SLOPE_HEAD, slope_rows(record)),
        tries=(TRIES_HEAD, tries_rows(record)),
        runs=_runs(record, several),
        definition=yaml.safe_dump(record["definition"], sort_keys=False, default_flow_style=None, width=100),
    )
    write_text(path, html)
    return path


def _setting(record: Row) -> str:
    base = record["definition"]["base"]
    seeds = len(record["definition"]["seeds"])
    return f"{base.get('data', 'digits')}, {budgets_text(record)}, {seeds} seeds"


def _tested(record: Row) -> str:
    tuned = any(row["tries"] for row in record["rows"])
    choice = "The choice between tries was made on validation data of other runs; the" if tuned else "The"
    return f"{choice} test set was used once, after the last iteration of each run."


def _problems(record: Row) -> list[str]:
    failed = [f"{label} failed: {error}" for label, error in record["failures"].items()]
    pending = record["pending"]
    missing = [f"Not decided yet, tries or costs are missing: {'; '.join(pending)}."] if pending else []
    short = [row["variant"] for row in record["rows"] if len(row["runs"]) < len(record["definition"]["seeds"])]
    unfinished = [f"Runs are missing of {', '.join(dict.fromkeys(short))}."] if short else []
    return failed + missing + unfinished


def _row(row: Row, record: Row, several: bool, colour: str) -> Row:
    cost = row["cost"]
    cells = [
        _cell(with_deviation(row["test_accuracy"]), interval_text(row["test_accuracy"])),
        *(_difference(row["against"].get(method)) for method in ("plain", "drop_path")),
        _cell(str(row["test_accuracy"]["n"])),
        _cell(with_deviation(row["validation_accuracy"])),
        _cell(with_deviation(row["train_accuracy"])),
        _cell(f"{row['iterations']:,}", f"trunk {row['trunk_updates']:,.0f}" if row["trunk_updates"] else ""),
        _cell("-") if cost is None else _cell(f"{row['total_cost']:.2f}", f"each {cost['per_iteration']:.2f}"),
    ]
    return {
        "name": row["variant"],
        "settings": row_name(row, budgets=several).removeprefix(row["variant"]).strip(" ,()"),
        "colour": colour,
        "cells": cells,
        "signatures": "; ".join(row["signatures"]),
        "command": study_command(record["file"], row["variant"], seeds=record.get("seeds")),
    }


def _difference(value: Row | None) -> Row:
    if value is None or value["mean"] is None or value["low"] is None:
        return _cell(difference_text(value))
    p = "" if value.get("p_holm") is None else f", p {p_text(value['p_holm'])}"
    return _cell(f"{100 * value['mean']:+.2f}", f"{100 * value['low']:+.2f} to {100 * value['high']:+.2f}{p}")


def _cell(text: str, small: str = "") -> Row:
    return {"text": text, "small": "" if small == "-" else small}


def _runs(record: Row, several: bool) -> list[list[str]]:
    return [
        [
            row_name(row, budgets=several),
            str(run["seed"]),
            *(
                "diverged" if run["diverged"] else _percent(run[f"{part}_accuracy"])
                for part in ("test", "validation", "train")
            ),
            run["key"],
            train_command(run["recipe"], threads=record["threads_of_a_run"]),
        ]
        for row in record["rows"]
        for run in row["runs"]
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
