"""`rdp compare`: several methods over several seeds."""

from __future__ import annotations

from typing import Annotated

import tyro

from ..experiments.compare.config import CompareConfig, goes_on
from .recipe_command import RecipeCommand, checked_folder, console, folder_name, parse
from .record_option import RecordOption


class CompareCommand(RecordOption, RecipeCommand):
    """Train by several methods over several seeds, and print what each costs and gains."""

    recipe: Annotated[CompareConfig, tyro.conf.arg(name="")] = CompareConfig()


def compare(arguments: list[str]) -> None:
    """Parse the command line, train, and show table, record and page."""
    command = parse("compare", CompareCommand, CompareConfig, arguments)
    recipe = command.recipe
    out = checked_folder(command, f"compare-{folder_name(recipe)}")
    keep = command.keeper(out, own=lambda record: command.resume and goes_on(record.get("config"), recipe))
    from ..experiments.compare.run import compare as run_comparison
    from ..experiments.compare.table import terminal_table, write_compare_page

    summary = run_comparison(recipe, out, resume=command.resume)
    console.print(terminal_table(summary))
    console.print(f"page: {write_compare_page(summary, out)}", soft_wrap=True)
    keep(summary)
