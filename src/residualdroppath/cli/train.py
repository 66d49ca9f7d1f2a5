"""`rdp train`: one network by one method."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import tyro

from ..training.recipe import TrainConfig
from .recipe_command import RecipeCommand, checked_folder, console, folder_name, parse

if TYPE_CHECKING:
    from ..training.trainer import Trainer


class TrainCommand(RecipeCommand):
    """Train a network by one method, and test it once."""

    recipe: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig()


def train(arguments: list[str]) -> None:
    """Parse the command line, train, and show accuracies and page."""
    command = parse("train", TrainCommand, TrainConfig, arguments)
    recipe = command.recipe
    out = checked_folder(command, f"{folder_name(recipe)}-{recipe.method}-seed{recipe.seed}")
    from ..data.describe import describe
    from ..training import preview, progress, run  # torch and what else a training needs, when there is one

    def show(trainer: Trainer) -> None:
        lines = [*describe(trainer.data), *preview.preview(trainer)]
        progress.console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)

    result = run.train(
        recipe,
        out,
        resume=command.resume,
        title=recipe.method,
        on_start=show,
        stops_on_signals=True,
    )
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes the first one speaks
    validation = f"validation {100 * result['validation_accuracy']:.2f} %"
    if "test_accuracy" in result:
        console.print(f"test accuracy {100 * result['test_accuracy']:.2f} %  ({validation})")
    else:
        console.print(validation)
    console.print(f"page: {out / 'index.html'}", soft_wrap=True)
