"""Commands that repeat a row or a run."""

from __future__ import annotations

import shlex
from typing import Any

from ...training.recipe import TrainConfig

Values = dict[str, Any]
WITH_THE_PACKAGE = ("digits",)  # sets that need no folder


def study_command(file: str, variant: str, *, seeds: int | None = None) -> str:
    """`seeds`: how many, where these are not those of the file."""
    return shlex.join(["rdp", "study", file, "--only", variant, *([] if seeds is None else ["--seeds", str(seeds)])])


def train_command(recipe: Values, *, threads: int | None = None) -> str:
    """The `rdp train` of one run, the test set used at its end; `DIR` stands for the folder of data."""
    default = TrainConfig().model_dump(mode="json")
    words = ["rdp", "train"]
    for name, value in {**recipe, "test": True, "threads": threads}.items():
        if name != "data_dir" and value != default[name]:
            words += _option(name, value)
    if recipe["data"] not in WITH_THE_PACKAGE and not _is_path(recipe["data"]):
        words += ["--data-dir", "DIR"]
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if type(value) is bool and TrainConfig.model_fields[name].annotation is bool:
        return [f"--{'' if value else 'no-'}{flag}"]
    if isinstance(value, dict):
        return [f"--{flag}", *(str(part) for pair in value.items() for part in pair)]
    if isinstance(value, list | tuple):
        return [f"--{flag}", *map(str, value)]
    return [f"--{flag}", str(value)]


def _is_path(data: str) -> bool:
    return "/" in data or data.startswith(".")
