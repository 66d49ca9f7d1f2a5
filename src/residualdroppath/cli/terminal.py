"""What commands print with: a console of a set width, and bars on stderr while they work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskID, TextColumn

from ..experiments.progress import OnProgress


def table_console(width: int) -> Console:
    """As wide as the terminal, `width` where there is none; brackets in a name are brackets."""
    at_terminal = sys.stdout is not None and sys.stdout.isatty()  # None: closed before the start
    return Console(markup=False, highlight=False, width=None if at_terminal else width)


def bars(*columns: ProgressColumn) -> Progress:
    """Bars that leave nothing behind."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,  # it would leave an empty line
    )


@contextmanager
def bar_for_each(*times: ProgressColumn) -> Iterator[OnProgress]:
    """A bar for everything that is reported by its name."""
    with bars(MofNCompleteColumn(), *times) as progress:
        tasks: dict[str, TaskID] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield on_progress
