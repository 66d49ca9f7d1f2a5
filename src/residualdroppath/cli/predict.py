"""`rdp predict RUN FOLDER --out predictions.csv`: the classes of images without labels."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from ..errors import UserError
from ..records.bounds import Bounded
from ..records.files import write_text
from ..records.outputs import require_file
from ..training.recipe import checked
from .terminal import bar_for_each, table_console


class PredictCommand(Bounded):
    """Write the class of each image, with its probability, as CSV."""

    run: Annotated[Path, tyro.conf.Positional] = Field(
        description="run folder of rdp train, or a .safetensors file that it wrote"
    )
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional] = Field(
        description="folders of images, with all below them, and single images"
    )
    out: Path = Field(description="CSV file to write: file, class, probability, and of further classes likewise")
    top_k: int = Field(default=1, ge=1, description="classes an image, the most probable first")
    batch_size: int = Field(default=256, ge=1, description="images at once")
    device: str = Field(default="auto", description="cpu, cuda, or auto")
    overwrite: bool = Field(default=False, description="replace a file that is there")


def predict(arguments: list[str]) -> None:
    """Parse the command line, predict, and write the file; stderr has what is skipped or changed by decoding."""
    command = checked(lambda: tyro.cli(PredictCommand, prog="rdp predict", args=arguments), "the command line")
    if not command.inputs:
        raise UserError("`inputs` must name a folder of images or an image; got none.")
    require_file(command.out, ".csv", overwrite=command.overwrite)
    from ..data.describe import remark_lines
    from ..inference.evaluation_files import csv_text
    from ..inference.network import load_network
    from ..inference.prediction import find_images
    from ..inference.prediction import predict as predictions_of

    network = load_network(command.run, command.device)
    if command.top_k > len(network.about.classes):
        raise UserError(
            f"`top_k` must be at most the network's {len(network.about.classes)} classes, got {command.top_k}."
        )
    files, notes = find_images(command.inputs)
    with bar_for_each() as on_progress:
        predictions, skipped = predictions_of(
            network,
            files,
            top_k=command.top_k,
            batch_size=command.batch_size,
            on_progress=lambda done, total: on_progress("images", done, total),
        )
    changed = Counter(remark for each in predictions for remark in each.remarks)
    for line in (*notes, *skipped, *remark_lines("images", changed)):
        print(line, file=sys.stderr)
    if not predictions:
        raise UserError("None of the images could be read; nothing was written.")
    head = ["file", "class", "probability"]
    head += [f"{name}_{place}" for place in range(2, command.top_k + 1) for name in ("class", "probability")]
    rows = (
        [each.file, *(value for pair in zip(each.classes, each.probabilities, strict=True) for value in pair)]
        for each in predictions
    )
    command.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(command.out, csv_text(head, rows), new=not command.overwrite)
    console = table_console(100)
    console.print(f"{len(predictions):,} images, {len(skipped):,} skipped\npredictions: {command.out}", soft_wrap=True)
