"""Commands of `rdp`, and how their errors look."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import BaseModel, Field
from rich.console import Console

from ..errors import UserError
from ..experiments.compare.config import CompareConfig
from ..experiments.compare.run import compare
from ..experiments.compare.table import terminal_table, write_compare_page
from ..records.files import write_record
from ..training.recipe import Recipe, TrainConfig, checked, read_config
from ..training.run import train
from .analyze import analyze
from .bench import bench
from .branches import branches
from .spiral import spiral

console = Console(markup=False)  # brackets in the name of a folder are brackets


class _Command(BaseModel):
    out: Path | None = Field(
        default=None, description="folder of the run; default: a name made from the recipe, under runs/"
    )
    resume: bool = Field(default=False, description="go on with the run in `out`")
    config: Path | None = Field(default=None, description="recipe to start from, as written to config.yaml")


class TrainCommand(_Command):
    """Train a network by one method, and test it once."""

    recipe: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig()


class CompareCommand(_Command):
    """Train by several methods over several seeds, and print what each costs and gains."""

    record: Path | None = Field(default=None, description="JSON file to keep the summary in as well")
    recipe: Annotated[CompareConfig, tyro.conf.arg(name="")] = CompareConfig()


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 a mistake that the message tells, 2 wrong usage, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code."""
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "compare": _compare,
        "branches": branches,
        "bench": bench,
        "spiral": spiral,
        "analyze": analyze,
    }
    if not arguments or arguments[0] not in commands:
        asked_help = bool(arguments) and arguments[0] in ("-h", "--help")
        if arguments and not asked_help:
            print(f"error: no command {arguments[0]!r}", file=sys.stderr)
        print(USAGE, file=sys.stdout if asked_help else sys.stderr)
        return 0 if asked_help else 2
    try:
        commands[arguments[0]](arguments[1:])
    except (UserError, OSError) as error:  # a full disk or a folder one may not write to tells itself
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = KEPT_WHEN_INTERRUPTED.get(arguments[0])
        print(f"interrupted: {kept}; add --resume to go on" if kept else "interrupted: run it again", file=sys.stderr)
        return 130
    return 0


KEPT_WHEN_INTERRUPTED = {
    "train": "whole epochs are kept",
    "compare": "whole epochs are kept",
    "spiral": "finished networks are kept",
}
USAGE = """usage: rdp COMMAND [options]      (rdp COMMAND --help lists them)

  train     train a network by one method: plain, drop_path or residual_drop_path
  compare   train by several methods over several seeds, and print a table
  branches  show the residual branches of any timm, torchvision or Hugging Face network, and what they cost
  bench     time an iteration beside plain training, drop path, and the least that it could take
  spiral    draw and measure every unit of a deep, narrow network on a spiral, trained by each method
  analyze   measure and draw what the layers and branches of any residual network do, alone or beside another"""


def _train(arguments: list[str]) -> None:
    command = _parse("train", TrainCommand, TrainConfig, arguments)
    recipe = command.recipe
    out = command.out or Path("runs") / f"{_folder_name(recipe)}-{recipe.method}-seed{recipe.seed}"
    result = train(recipe, out, resume=command.resume, title=recipe.method)
    console.print(
        f"test accuracy {100 * result['test_accuracy']:.2f} %  (validation {100 * result['validation_accuracy']:.2f} %)"
    )
    console.print(f"page: {out / 'index.html'}", soft_wrap=True)


def _compare(arguments: list[str]) -> None:
    command = _parse("compare", CompareCommand, CompareConfig, arguments)
    recipe = command.recipe
    out = command.out or Path("runs") / f"compare-{_folder_name(recipe)}"
    summary = compare(recipe, out, resume=command.resume)
    if command.record is not None:
        write_record(command.record, summary)
    console.print(terminal_table(summary))
    console.print(f"page: {write_compare_page(summary, out)}", soft_wrap=True)


def _folder_name(recipe: Recipe) -> str:
    return f"{Path(recipe.data).name}-{recipe.model.replace('/', '-')}"


def _parse(name: str, kind: Any, recipe: type[Recipe], arguments: list[str]) -> Any:
    """Options of the command line over those of `--config` (or of the run to resume) over defaults."""
    given = _peek(arguments)
    file = given.get("config")
    if file is None and "resume" in given and "out" in given and (given["out"] / "config.yaml").is_file():
        file = given["out"] / "config.yaml"
    default = kind(recipe=read_config(recipe, file)) if file else kind()
    return checked(lambda: tyro.cli(kind, prog=f"rdp {name}", args=arguments, default=default), "the command line")


def _peek(arguments: list[str]) -> dict[str, Path]:
    """`--config`, `--out` and `--resume`, needed before the other options can be understood."""
    found: dict[str, Path] = {}
    for position, argument in enumerate(arguments):
        option, _, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and option in ("config", "out", "resume"):
            following = arguments[position + 1] if position + 1 < len(arguments) else ""
            found[option] = Path(value or following)
    return found


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
