"""Options of commands that train by a recipe: those of the command line over those of a file over defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import tyro
from pydantic import BaseModel, Field
from rich.console import Console

from ..records.outputs import require_folder
from ..training.recipe import Recipe, checked, read_config
from .recipe_groups import with_headings

console = Console(markup=False)  # brackets in the name of a folder are brackets


class RecipeCommand(BaseModel):
    out: Path | None = Field(
        default=None, description="folder of the run; default: a name made from the recipe, under runs/"
    )
    resume: bool = Field(default=False, description="go on with the run in `out`")
    config: Path | None = Field(default=None, description="recipe to start from, as written to config.yaml")


def parse(name: str, kind: Any, recipe: type[Recipe], arguments: list[str]) -> Any:
    """The command `kind`; `--config`, or the folder of the run to resume, gives the file."""
    given = _peek(arguments)
    file = given.get("config")
    if file is None and "resume" in given and "out" in given and (given["out"] / "config.yaml").is_file():
        file = given["out"] / "config.yaml"
    default = kind(recipe=read_config(recipe, file)) if file else kind()
    with with_headings():
        return checked(lambda: tyro.cli(kind, prog=f"rdp {name}", args=arguments, default=default), "the command line")


def checked_folder(command: RecipeCommand, default: str) -> Path:
    """The folder of a run, found fit to be written to before anything is read or trained."""
    out = command.out or Path("runs") / default
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one writes; the others end with it
        require_folder(out, resume=command.resume)
    return out


def folder_name(recipe: Recipe) -> str:
    """Data and model, the part of a default folder's name that all commands share."""
    return f"{Path(recipe.located().data).name}-{recipe.model.replace('/', '-')}"


def _peek(arguments: list[str]) -> dict[str, Path]:
    """`--config`, `--out` and `--resume`, needed before the other options can be understood."""
    found: dict[str, Path] = {}
    for position, argument in enumerate(arguments):
        option, _, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and option in ("config", "out", "resume"):
            following = arguments[position + 1] if position + 1 < len(arguments) else ""
            found[option] = Path(value or following)
    return found
