"""What a run is about to do, in lines for a person."""

from __future__ import annotations

from ..data.image_sources import Encoded
from .sharding import is_sharded
from .trainer import Trainer


def preview(trainer: Trainer) -> list[str]:
    """The order of images, the network with its branches, and the length of the training, on data already described."""
    config = trainer.config
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    done = f", {trainer.iteration:,} of them done" if trainer.iteration else ""
    return [
        *_order(trainer),
        f"network: {config.model}, {parameters:,} parameters, {trainer.made.weights_line}",
        *_of_start(trainer),
        f"method: {config.method}, {_branches(trainer)}",
        f"training: {trainer.epochs:,} epochs, {trainer.total_iterations:,} iterations of {config.batch_size:,} images"
        f"{done}, on {_devices(trainer)}",
    ]


def _of_start(trainer: Trainer) -> list[str]:
    """Whose normalisation and image size are in force, and what does not learn."""
    made, lines = trainer.made, []
    if made.start is not None:
        shown = " / ".join(" ".join(f"{value / 255:.3f}" for value in values) for values in made.statistics)
        known = made.start.statistics(made.channels)
        whose = "of the weights" if known else "of the training images (the weights come with none that fits)"
        lines.append(f"normalisation: {whose}, mean / deviation {shown}")
        if (own := made.start.image_size) is not None:
            chosen = "that of the weights" if trainer.data.image_size == own else f"the weights had {own}x{own}"
            lines.append(f"image size: {trainer.data.image_size}x{trainer.data.image_size}, {chosen}")
    if made.frozen.names:
        total, norms = sum(parameter.numel() for parameter in made.model.parameters()), len(made.frozen.norms)
        lines.append(
            f"frozen: {made.frozen.num_parameters:,} of {total:,} parameters, {norms} norms in evaluation mode"
        )
    return lines


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
    where += ", weights split over them" if is_sharded(trainer.model) else ""
    return where + (f", in {parts} parts each" if parts > 1 else "")


def _branches(trainer: Trainer) -> str:
    if trainer.rdp is None:
        return "no branch is dropped"
    rates = [branch.drop_rate for branch in trainer.rdp.branches]
    if not rates:
        return "residual branches are found in the first iteration"
    if not any(rates):
        return f"{len(rates)} residual branches, none with a drop rate above 0: all iterations are plain ones"
    return f"{len(rates)} residual branches, drop rates {min(rates):.3g} to {max(rates):.3g}"
