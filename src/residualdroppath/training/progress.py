"""Progress that people can look at: a bar in a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from .controls import iterations_of_cycle
from .durations import duration
from .estimate import Estimate
from .trainer import Trainer

console = Console(stderr=True)
OnEpoch = Callable[[int, int], None]


class TrainingProgress:
    """Loss, accuracy, images/s, kind of iteration and time left; `title` tells runs apart.

    With `estimate`, a line on the time expected comes once some iterations have been timed. With `on_epoch`, which is
    called after each epoch with it and their number, nothing is shown.
    """

    def __init__(
        self,
        title: str,
        total_iterations: int,
        done: int = 0,
        *,
        estimate: bool = False,
        on_epoch: OnEpoch | None = None,
    ):
        self.title = title
        self.estimate = estimate and on_epoch is None
        self.on_epoch = on_epoch
        self.time: Estimate | None = None
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=on_epoch is not None or not console.is_terminal,
        )
        self.task = self.progress.add_task(title, total=total_iterations, completed=done, numbers="")
        self.epoch_started = time.perf_counter()

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.progress.stop()

    def start_epoch(self, done: int = 0) -> None:
        """Of its iterations, `done` were made before a resume."""
        self.epoch_started = time.perf_counter()
        self.done_before = done
        if self.time is not None:
            self.time.restart()

    def __call__(self, trainer: Trainer, loss: Tensor, accuracy: Tensor, done: int) -> None:
        if self.estimate:
            self._show_estimate(trainer, last=done == trainer.iterations_per_epoch)
        if self.progress.disable:
            return
        speed = (done - self.done_before) * trainer.config.batch_size / (time.perf_counter() - self.epoch_started)
        numbers = f"loss {loss:.4f}  acc {100 * accuracy:5.2f} %  {speed:,.0f} img/s  {trainer.kind:<12}"
        self.progress.update(self.task, completed=trainer.iteration, numbers=numbers)

    def _show_estimate(self, trainer: Trainer, *, last: bool) -> None:
        if self.time is None:
            self.time = Estimate(iterations_of_cycle(trainer.config))
        each = self.time.seconds_per_iteration(trainer.iteration, time.perf_counter(), last=last)
        if each is None:
            return
        self.estimate = False
        if not (to_come := trainer.total_iterations - trainer.iteration):
            return
        self.progress.console.print(
            f"time expected: {duration(each * to_come)} for the {to_come:,} iterations to come, without validation",
            highlight=False,
        )

    def epoch_line(self, row: dict[str, Any], epochs: int) -> None:
        if self.on_epoch is not None:
            self.on_epoch(row["epoch"], epochs)
            return
        validation = f"{100 * row['validation_accuracy']:5.2f} %" if "validation_accuracy" in row else "-"
        if "validation_top5_accuracy" in row:
            validation += f" (of five {100 * row['validation_top5_accuracy']:.2f} %)"
        if "ema_validation_accuracy" in row:
            validation += f"  average {100 * row['ema_validation_accuracy']:5.2f} %"
        self.progress.console.print(
            f"{self.title}  epoch {row['epoch']:>3}/{epochs}  loss {row['train_loss']:.4f}  "
            f"train {100 * row['train_accuracy']:5.2f} %  validation {validation}  "
            f"{row['images_per_second']:,.0f} img/s",
            highlight=False,
            soft_wrap=True,
        )
