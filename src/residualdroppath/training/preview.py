"""What a run is about to do, in lines for a person."""

from __future__ import annotations

from ..data.describe import describe
from ..data.images import Encoded
from .trainer import Trainer


def preview(trainer: Trainer) -> list[str]:
    """What was found of the data, the network with its branches, and the length of the training."""
    config = trainer.config
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    done = f", {trainer.iteration:,} of them done" if trainer.iteration else ""
    return [
        *describe(trainer.data),
        *_order(trainer),
        f"network: {config.model}, {parameters:,} parameters, random weights",
        f"method: {config.method}, {_branches(trainer)}",
        f"training: {trainer.epochs:,} epochs, {trainer.total_iterations:,} iterations of {config.batch_size:,} images"
        f"{done}, on {_devices(trainer)}",
    ]


def _order(trainer: Trainer) -> list[str]:
    """How images are drawn, where that is not from all at once."""
    size, source = trainer.config.shuffle_buffer, trainer.data.train.source
    if size is None:
        return []
    shards = source.by_shard if isinstance(source, Encoded) else None
    if shards is None:
        return ["training images are in memory and drawn from all, `shuffle_buffer` has no effect"]
    return [f"order: {len(shards):,} shards one after another, images drawn from the next {size:,}"]


def _devices(trainer: Trainer) -> str:
    """Where, in how many processes and parts the images of an iteration are computed."""
    count, parts = trainer.processes.count, trainer.config.accumulation
    where = str(trainer.device) if count == 1 else f"{count} processes ({trainer.device.type})"
    return where + (f", in {parts} parts each" if parts > 1 else "")


def _branches(trainer: Trainer) -> str:
    if trainer.rdp is None:
        return "no branch is dropped"
    rates = [branch.drop_rate for branch in trainer.rdp.branches]
    if not rates:
        return "residual branches are found in the first iteration"
    return f"{len(rates)} residual branches, drop rates {min(rates):.3g} to {max(rates):.3g}"
