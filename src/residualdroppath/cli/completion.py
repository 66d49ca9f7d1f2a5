"""`rdp --print-completion SHELL`: a script that completes commands and options."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, Literal, Union

import tyro

from . import main

Shell = Literal["bash", "zsh"]


def print_completion(arguments: list[str]) -> None:
    """Print the script for one shell; tyro, which parses the options, writes it."""
    shell = tyro.cli(
        Annotated[Shell, tyro.conf.Positional, tyro.conf.arg(name="shell")],  # pyright: ignore[reportArgumentType]
        prog="rdp --print-completion",
        args=arguments,
    )
    tyro.cli(all_commands(), prog="rdp", args=["--tyro-print-completion", shell])


def all_commands() -> Any:
    """The union of the models of all commands, `NameCommand` in the module of each."""
    models = {name: _model(name) for name in main.COMMANDS}
    commands = [Annotated[model, tyro.conf.subcommand(name)] for name, model in models.items()]
    return Union[tuple(commands)]  # noqa: UP007


def _model(name: str) -> Any:
    return getattr(import_module(f".{name}", __package__), f"{name.title()}Command")
