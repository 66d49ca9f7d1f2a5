"""`rdp report RUN...`: several runs side by side, in a table and as a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import BaseModel, Field

from ..errors import UserError
from ..records.outputs import require_folder
from ..training.recipe import checked
from ..training.summaries import RunSummary, find_runs, in_order, summarise
from .runs import Order
from .runs_table import HEAD, WIDTH, run_rows, runs_table
from .terminal import table_console

PAGE = {"index.html", "curves.png"}


class ReportCommand(BaseModel):
    """Put several runs side by side: a table, and their validation accuracy over epochs and over time."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...", help_behavior_hint="")] = (
        Field(default=(), description="folders of runs, or of folders with runs in them")
    )
    out: Path = Field(default=Path("runs/report"), description="folder for the page")
    overwrite: bool = Field(default=False, description="replace a page that is there")
    sort: Order = Field(
        default="recipe", description="order: recipe is data, model, method and seed; accuracies and times fall"
    )


def report(arguments: list[str]) -> None:
    """Parse the command line, print the table and write the page."""
    command = checked(lambda: tyro.cli(ReportCommand, prog="rdp report", args=arguments), "the command line")
    _require_out(command.out, overwrite=command.overwrite)
    runs = in_order(_runs(command.runs), command.sort)
    folder = Path(os.path.commonpath([run.path.parent for run in runs]))
    from ..training.runs_page import write_runs_page

    command.out.mkdir(parents=True, exist_ok=True)
    rows = run_rows(runs, folder)
    page = write_runs_page(runs, [row[0] for row in rows], HEAD, rows, command.out)
    console = table_console(WIDTH)
    console.print(runs_table(runs, folder))
    console.print(f"page: {page}", soft_wrap=True)


def _require_out(out: Path, *, overwrite: bool) -> None:
    """A page can be written: to a new folder, or with `overwrite` in place of the page alone that is there."""
    if not any(out.glob("*")) or not overwrite:
        require_folder(out, otherwise=", or --overwrite the page in it")
    elif others := {path.name for path in out.iterdir()} - PAGE:
        raise UserError(f"{out} holds more than a page ({', '.join(sorted(others)[:3])}); choose another `out`.")
    else:
        require_folder(out, resume=True)


def _runs(paths: tuple[Path, ...]) -> list[RunSummary]:
    """Of all folders, each run once. Raises `UserError` for a folder without any."""
    if not paths:
        raise UserError("`runs` must name at least one folder of a run.")
    found: dict[Path, RunSummary] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"`runs` must name folders of runs, got {path}, which is not there.")
        below = find_runs(path)
        if not below:
            raise UserError(f"`runs` must name folders of runs, got {path}, which holds none.")
        for run in below:
            found.setdefault(run.resolve(), summarise(run.absolute()))
    return list(found.values())
