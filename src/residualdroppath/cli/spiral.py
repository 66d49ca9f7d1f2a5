"""`rdp spiral`: every unit of a deep, narrow network on a spiral, by each method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field
from rich.progress import TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..experiments.spiral.config import SpiralConfig
from ..records.outputs import require_folder
from ..training.recipe import Threads, checked
from .record_option import RecordOption
from .terminal import bars, table_console

WIDTH = 120


class SpiralCommand(RecordOption):
    """Train a residual MLP on a spiral by each method, and draw and measure every unit of every layer."""

    out: Path = Field(default=Path("runs/spiral"), description="folder of the run")
    resume: bool = Field(default=False, description="go on with the run in `out`; networks that are finished stay")
    workers: Threads | None = Field(default=None, description="networks trained at a time; default: one per core")
    config: Annotated[SpiralConfig, tyro.conf.arg(name="")] = SpiralConfig()


def spiral(arguments: list[str]) -> None:
    """Parse the command line, train and measure, and show table, answer, record and page."""
    command = checked(lambda: tyro.cli(SpiralCommand, prog="rdp spiral", args=arguments), "the command line")
    require_folder(command.out, resume=command.resume)
    keep = command.keeper(command.out, own=lambda record: _is_own(record, command))
    from ..experiments.spiral.report import terminal_table, write_report
    from ..experiments.spiral.run import run_spiral
    from ..experiments.spiral.summary import QUESTION, answer

    with bars(TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        training = progress.add_task("training and measuring", total=None)
        record = run_spiral(
            command.config,
            command.out,
            resume=command.resume,
            workers=command.workers,
            on_progress=lambda done, total: progress.update(training, completed=done, total=total),
        )
        progress.update(training, total=1, completed=1)
        drawing = progress.add_task("drawing", total=None)
        page = write_report(
            record, command.out, lambda done, total: progress.update(drawing, completed=done, total=total)
        )
    console = table_console(WIDTH)
    console.print(terminal_table(record))
    console.print(f"{QUESTION} {answer(record)}")
    console.print(f"record: {command.out / 'record.json'}\npage: {page}", soft_wrap=True)
    keep(record)


def _is_own(record: dict[str, Any], command: SpiralCommand) -> bool:
    """Whether it is of the run that is resumed, which may have other seeds."""
    config = record.get("config")
    if not command.resume or not isinstance(config, dict):
        return False
    ours = command.config.model_dump(mode="json")
    return all(config.get(name) == value for name, value in ours.items() if name != "seeds")
