"""The figures of the trainer in docs/training.md, from the records in `results/training/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cost_page import markdown_table

RECORDS = Path(__file__).parents[1] / "results" / "training"
Row = list[str]


def figures_table() -> str:
    """One row for each figure that has been measured: what, target, found, command."""
    rows: list[Row] = []
    for name, make in {
        "against_timm": _against_timm,
        "two_processes": _two_processes,
        "start_up": _start_up,
        "decoding": _decoding,
        "soak": _soak,
    }.items():
        path = RECORDS / f"{name}.json"
        if path.is_file():
            record = json.loads(path.read_text())
            command = f"`benchmarks/{record['environment']['command']}`"
            rows += [[*row, command] for row in make(record)]
    return markdown_table(["what", "aim", "measured", "command"], rows)


def _ratio(found: dict[str, Any]) -> str:
    low, high = found["quartiles"]
    return f"{found['median']:.2f} ({low:.2f} to {high:.2f})"


def _against_timm(record: dict[str, Any]) -> list[Row]:
    config = record["config"]
    what = f"iterations per second over those of timm's `train.py` {record['timm']['version']}, {config['model']}, "
    what += f"{config['image_size']}x{config['image_size']}, "
    return [
        [f"{what}{method}", f"at least {found['target']:.2f}", _ratio(found)]
        for method, found in (
            ("plain", record["plain_over_timm"]),
            (f"the method at {config['rate']:g}", record["residual_drop_path_over_timm"]),
            ('the same with `freeze="stop_gradient"`', record["residual_drop_path_stop_gradient_over_timm"]),
        )
    ]


def _two_processes(record: dict[str, Any]) -> list[Row]:
    found, own = record["time_per_iteration_over_plain"], record["time_per_iteration_over_own_exchange"]
    kinds = record["kinds"]
    sent = kinds["dropped_part"]["mean_bytes"] / kinds["plain"]["mean_bytes"]
    learns = kinds["dropped_part"]["mean_bytes_of_what_learns"] / kinds["plain"]["mean_bytes_of_what_learns"]
    return [
        [f"two processes (gloo), {record['config']['model']}: time of an iteration over plain DDP's",
         f"at most {found['target']:.2f}", _ratio(found)],
        ["the same over the method with DDP's own exchange, which sends all gradients",
         f"at most {own['target']:.2f}", _ratio(own)],
        ["bytes sent in `dropped_part` iterations over plain DDP's", f"{learns:.2f}, the share that learns",
         f"{sent:.2f}"],
    ]  # fmt: skip


def _start_up(record: dict[str, Any]) -> list[Row]:
    names = {
        "help": "`rdp --help`, seconds of CPU",
        "typo": "the error for a typo, seconds of CPU",
        "first line after torch": "first line of `rdp train --data digits`, seconds after torch is imported",
    }
    return [
        [text, f"at most {record[name]['target']:.1f}", f"{record[name]['seconds']:.2f}"]
        for name, text in names.items()
    ]


def _decoding(record: dict[str, Any]) -> list[Row]:
    size = record["config"]["train_size"]
    what = f"images decoded for `--train-size {size}` of a Parquet set"
    return [[what, f"{record['expected']:,}: training and validation", f"{record['decoded_in_all']:,}"]]


def _soak(record: dict[str, Any]) -> list[Row]:
    what = f"growth of memory over {record['config']['iterations']:,} iterations"
    return [[what, f"at most {100 * record['most_growth']:.0f} %", f"{100 * record['growth']:.1f} %"]]
