"""Commands that a page shows are understood, and mean the run they stand at."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from residualdroppath.cli.recipe_command import parse
from residualdroppath.cli.train import TrainCommand
from residualdroppath.experiments.studies.commands import study_command, train_command
from residualdroppath.training.recipe import TrainConfig
from training.test_recipe import EVERY_OPTION


@pytest.mark.parametrize(
    "options",
    [{}, EVERY_OPTION, {"schedule": "random", "mirror": True, "rate_over_time": "early"}, {"scale_by_keep": False}],
)
def test_command_of_a_run_is_its_recipe(options: dict[str, Any]) -> None:
    config = TrainConfig.model_validate(options)
    words = shlex.split(train_command(config.model_dump(mode="json"), threads=2))
    assert words[:2] == ["rdp", "train"]
    found = parse("train", TrainCommand, TrainConfig, words[2:]).recipe
    assert found == config.model_copy(update={"test": True, "threads": 2, "data_dir": Path("data")})


def test_place_of_data_is_left_open() -> None:
    assert train_command(TrainConfig(data="mnist").model_dump(mode="json")).endswith("--data mnist --data-dir DIR")


def test_command_of_a_row() -> None:
    words = ["rdp", "study", "a b.yaml", "--only", "it's"]
    assert shlex.split(study_command("a b.yaml", "it's")) == words
    assert shlex.split(study_command("a b.yaml", "it's", seeds=7)) == [*words, "--seeds", "7"]
