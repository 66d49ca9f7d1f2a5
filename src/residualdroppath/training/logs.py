"""Where each epoch is written besides `metrics.jsonl` and `log.csv`: TensorBoard, Weights & Biases."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError, first_line
from ..records.files import write_text
from .recipe import TrainConfig

Row = dict[str, Any]


class Log(Protocol):
    def write(self, row: Row) -> None:
        """The metrics of one epoch, numbers by name, `epoch` among them."""
        ...


def to_csv(rows: Sequence[Row]) -> str:
    """A line per epoch, and a column for whatever one of them has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def require_packages(config: TrainConfig) -> None:
    """Raises `UserError` for a log whose package is not installed; nothing is imported yet."""
    for name in config.log:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"`log` {name} needs a package that is not installed: pip install 'residualdroppath[{name}]'."
            )


@contextlib.contextmanager
def opened_logs(config: TrainConfig, folder: Path, epochs_before: int) -> Iterator[list[Log]]:
    """Those that a recipe has, closed in the end; what was written of epochs after `epochs_before` is replaced."""
    kinds = {"tensorboard": _tensorboard, "wandb": _weights_and_biases}
    with ExitStack() as stack:
        yield [kinds[name](config, folder, epochs_before, stack) for name in config.log]


class _TensorBoard:
    def __init__(self, writer: Any):
        self.writer = writer

    def write(self, row: Row) -> None:
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(_grouped(name), value, row["epoch"])
        self.writer.flush()


class _WeightsAndBiases:
    def __init__(self, run: Any):
        self.run = run

    def write(self, row: Row) -> None:
        self.run.log({_grouped(name): value for name, value in row.items()}, step=row["epoch"])


def _tensorboard(config: TrainConfig, folder: Path, epochs_before: int, stack: ExitStack) -> Log:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs_before + 1)
    stack.callback(writer.close)
    return _TensorBoard(writer)


def _weights_and_biases(config: TrainConfig, folder: Path, epochs_before: int, stack: ExitStack) -> Log:
    import wandb  # pyright: ignore[reportMissingImports]

    known = folder / "wandb-id.txt"
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "residualdroppath"),
            name=folder.name,
            dir=folder,
            id=known.read_text().strip() if known.is_file() else None,
            resume="allow",
            config=config.model_dump(mode="json"),
        )
    except Exception as error:  # no account, no network
        raise UserError(
            f"`log` wandb cannot start ({first_line(error)}); log in, or set WANDB_MODE=offline."
        ) from error
    write_text(known, f"{run.id}\n")
    stack.push(lambda kind, value, tb: run.finish(exit_code=0 if kind is None else 1))
    return _WeightsAndBiases(run)


def _grouped(name: str) -> str:
    """`validation/loss` of validation_loss: tools draw what is before the slash together."""
    for part in ("ema_validation", "validation", "train"):
        if name.startswith(f"{part}_"):
            return f"{part}/{name.removeprefix(f'{part}_')}"
    return name
