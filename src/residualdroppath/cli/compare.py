"""`rdp compare`: several methods over several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from ..experiments.compare.config import CompareConfig
from ..experiments.compare.run import compare as run_comparison
from ..experiments.compare.table import terminal_table, write_compare_page
from ..records.files import write_record
from .recipe_command import RecipeCommand, console, folder_name, parse


class CompareCommand(RecipeCommand):
    """Train by several methods over several seeds, and print what each costs and gains."""

    record: Path | None = Field(default=None, description="JSON file to keep the summary in as well")
    recipe: Annotated[CompareConfig, tyro.conf.arg(name="")] = CompareConfig()


def compare(arguments: list[str]) -> None:
    """Parse the command line, train, and show table, record and page."""
    command = parse("compare", CompareCommand, CompareConfig, arguments)
    recipe = command.recipe
    out = command.out or Path("runs") / f"compare-{folder_name(recipe)}"
    summary = run_comparison(recipe, out, resume=command.resume)
    if command.record is not None:
        write_record(command.record, summary)
    console.print(terminal_table(summary))
    console.print(f"page: {write_compare_page(summary, out)}", soft_wrap=True)
