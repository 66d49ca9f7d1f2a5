"""`rdp train`: one network by one method."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import tyro

from ..training import progress
from ..training.preview import preview
from ..training.recipe import TrainConfig
from ..training.run import train as run_training
from ..training.trainer import Trainer
from .recipe_command import RecipeCommand, console, folder_name, parse


class TrainCommand(RecipeCommand):
    """Train a network by one method, and test it once."""

    recipe: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig()


def train(arguments: list[str]) -> None:
    """Parse the command line, train, and show accuracies and page."""
    command = parse("train", TrainCommand, TrainConfig, arguments)
    recipe = command.recipe
    out = command.out or Path("runs") / f"{folder_name(recipe)}-{recipe.method}-seed{recipe.seed}"
    result = run_training(
        recipe, out, resume=command.resume, title=recipe.method, on_start=_show, stops_on_signals=True
    )
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes the first one speaks
    validation = f"validation {100 * result['validation_accuracy']:.2f} %"
    if "test_accuracy" in result:
        console.print(f"test accuracy {100 * result['test_accuracy']:.2f} %  ({validation})")
    else:
        console.print(validation)
    console.print(f"page: {out / 'index.html'}", soft_wrap=True)


def _show(trainer: Trainer) -> None:
    progress.console.print("\n".join(preview(trainer)), markup=False, highlight=False, soft_wrap=True)
