"""Runs as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from ..data.request import reader_of
from ..training.durations import duration
from ..training.summaries import RunSummary

WIDTH = 120
HEAD = (
    "run", "test", "validation", "best (epoch)", "epoch", "time", "state", "method", "model", "data", "seed"
)  # fmt: skip
NUMBERS = ("test", "validation", "best (epoch)", "epoch", "time", "seed")


def runs_table(runs: Sequence[RunSummary], folder: Path | None = None) -> Table:
    """A row for each, by its name below `folder`; accuracies in percent, time of training."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in HEAD:
        is_number = name in NUMBERS
        table.add_column(
            name, justify="right" if is_number else "left", no_wrap=is_number or name == "state", overflow="fold"
        )
    for cells in run_rows(runs, folder):
        table.add_row(*cells)
    return table


def run_rows(runs: Sequence[RunSummary], folder: Path | None = None) -> list[list[str]]:
    """A list of texts for each run, in the order of `HEAD`."""
    return [_row(run, folder) for run in runs]


def _row(run: RunSummary, folder: Path | None) -> list[str]:
    path = run.path if folder is None or run.path == folder else run.path.relative_to(folder)
    config, best = run.config, run.best
    of = f"/{config.epochs}" if config is not None and config.iterations is None else ""
    recipe = ("-",) * 4
    if config is not None:
        recipe = (config.method, config.model, data_name(config.data), str(config.seed))
    return [
        str(path),
        percent(run.test),
        percent(run.last),
        "-" if best is None else f"{percent(best[0])} ({best[1]})",
        f"{run.epoch}{of}",
        duration(run.seconds) if run.epochs else "-",
        run.state,
        *recipe,
    ]


def data_name(data: str) -> str:
    """Of a folder its name alone, of a reader's what it reads."""
    reader, rest = reader_of(data)
    return f"{reader}/{Path(rest).name}" if reader else Path(rest).name


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
