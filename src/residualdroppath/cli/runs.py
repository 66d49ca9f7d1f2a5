"""`rdp runs DIR`: the runs under a folder, one a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import BaseModel, Field

from ..errors import UserError
from ..training.recipe import checked
from ..training.summaries import find_runs, in_order, summarise
from .runs_table import WIDTH, runs_table
from .terminal import table_console

Order = Literal["recipe", "path", "state", "epoch", "validation", "test", "time"]


class RunsCommand(BaseModel):
    """List the runs under a folder, of which nothing is changed."""

    folder: Annotated[Path, tyro.conf.Positional] = Field(
        default=Path("runs"), description="of a run, or of folders with runs in them"
    )
    sort: Order = Field(
        default="recipe", description="order: recipe is data, model, method and seed; accuracies and times fall"
    )
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = Field(
        default=False, description="print a JSON list, and nothing else"
    )


def runs(arguments: list[str]) -> None:
    """Parse the command line, and print the table or the JSON list."""
    command = checked(lambda: tyro.cli(RunsCommand, prog="rdp runs", args=arguments), "the command line")
    if not command.folder.is_dir():
        raise UserError(f"`folder` must be a folder with runs in it, got {command.folder}, which is not there.")
    found = in_order([summarise(path) for path in find_runs(command.folder)], command.sort)
    if command.as_json:
        print(json.dumps([run.record() for run in found], indent=2))
        return
    console = table_console(WIDTH)
    if not found:
        console.print(f"no runs under {command.folder}")
        return
    console.print(runs_table(found, command.folder))
    for run in found:
        if run.problem:
            console.print(f"damaged: {run.problem}", soft_wrap=True)
