"""How far a study is: trials done, those that run with their epochs, and the time left."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from .trial import Outcome, Trial

console = Console(stderr=True, markup=False, highlight=False)


class StudyProgress:
    """Bars in a terminal; elsewhere a line for each trial that ends. `failures`: trials that gave no result."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[left]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.failures: dict[str, str] = {}
        self.warnings: set[str] = set()
        self.total = self.done = 0
        self.work = self.work_done = 0.0
        self.started_at = time.monotonic()

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.progress.stop()

    def say(self, line: str) -> None:
        self.progress.console.print(line, soft_wrap=True)

    def begin(self, what: str, trials: list[Trial]) -> None:
        """A phase of the study: the bar over all of its trials."""
        self.total, self.done = len(trials), 0
        self.work, self.work_done = sum(trial.work for trial in trials), 0.0
        self.started_at = time.monotonic()
        self.overall = self.progress.add_task(what, total=self.total, left="")

    def end(self) -> None:
        if self.done < self.total:
            left = self.total - self.done
            self.say(f"time is up: {left} of {self.total} trials have not ended; run the same command to go on")
        for task in self.tasks.values():
            self.progress.remove_task(task)
        self.tasks.clear()
        self.progress.remove_task(self.overall)

    def started(self, trial: Trial) -> None:
        self.tasks[trial.key] = self.progress.add_task(f"  {trial.label}", total=1, left="")

    def epoch(self, trial: Trial, epoch: int, epochs: int) -> None:
        self.progress.update(self.tasks[trial.key], completed=epoch, total=epochs)

    def warned(self, trial: Trial, text: str) -> None:
        """Once, as trials of a variant warn alike."""
        if text not in self.warnings:
            self.warnings.add(text)
            self.say(f"{trial.label}: warning: {text}")

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        self.progress.remove_task(self.tasks.pop(trial.key))
        if outcome.status == "busy":
            return
        self.done += 1
        self.work_done += trial.work
        left = f"{self.time_left()} left" if self.done < self.total else ""
        self.progress.update(self.overall, completed=self.done, left=left)
        if outcome.status == "failed":
            self.failures[trial.label] = outcome.error
        if outcome.status != "done":
            self.say(f"{trial.label}: {outcome.status}: {outcome.error}")
        elif self.progress.disable:
            self.say(f"[{self.done}/{self.total}] {trial.label}  {left}".rstrip())

    def time_left(self) -> str:
        seconds = (time.monotonic() - self.started_at) / self.work_done * (self.work - self.work_done)
        hours, minutes = int(seconds // 3600), int(seconds % 3600 // 60)
        return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {int(seconds % 60):02d} s"
