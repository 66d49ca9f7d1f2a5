"""`rdp eval RUN`: how often a trained network is right, on its own data or on others with the same classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from ..records.bounds import Bounded
from ..records.files import locked
from ..records.outputs import require_folder
from ..training.recipe import Recipe, checked
from .terminal import bar_for_each, table_console

WIDTH = 100
MOST_CLASSES = 40  # in the terminal; files and the page have all


class EvalCommand(Bounded):
    """Evaluate a trained network: loss, top-1, top-5, accuracy by class, and what is taken for what."""

    run: Annotated[Path, tyro.conf.Positional] = Field(
        description="run folder of rdp train, or a .safetensors file that it wrote"
    )
    data: str | None = Field(
        default=None,
        description="other images, classes matched by name: a set as for rdp train, or a folder CLASS/*.jpg; default: "
        "those of the run",
    )
    part: Literal["train", "validation", "test"] = Field(default="validation", description="which part of the data")
    out: Path | None = Field(default=None, description="folder for record, tables, confusion matrix and page")
    data_dir: Path | None = Field(default=None, description="where named sets lie, in place of the run's")
    label_column: str = Field(default="label", description="Parquet column of labels, of `data`")
    image_column: str | None = Field(default=None, description="Parquet column of encoded images, of `data`")
    batch_size: int = Field(default=256, ge=1, description="images at once")
    device: str = Field(default="auto", description="cpu, cuda, or auto")


def eval(arguments: list[str]) -> None:
    """Parse the command line, evaluate, and show figures, the table of classes, and the page."""
    command = checked(lambda: tyro.cli(EvalCommand, prog="rdp eval", args=arguments), "the command line")
    if command.out is not None:
        require_folder(command.out)
    from rich.table import Table

    from ..data.request import Request
    from ..inference.evaluation import evaluate
    from ..inference.evaluation_files import class_row, percent, write_evaluation
    from ..inference.labelled import other_images, own_images
    from ..inference.network import load_network

    network = load_network(command.run, command.device)
    if command.data is None:
        images = own_images(network, command.part, command.data_dir)
    else:
        request = Request(
            data=command.data,
            data_dir=command.data_dir or Recipe().data_dir,
            label_column=command.label_column,
            image_column=command.image_column,
        )
        images = other_images(network, request, command.part)
    with bar_for_each() as on_progress:
        found = evaluate(
            network, images.split, command.batch_size, lambda done, total: on_progress("images", done, total)
        )
    notes = images.all_notes()
    record = {"network": str(command.run), "data": images.name, "part": command.part, "notes": notes, **found}
    console = table_console(WIDTH)
    for note in notes:
        console.print(note, soft_wrap=True)
    table = Table("class", *("images", "accuracy", "answers", "of which right"))
    for row in found["classes"][:MOST_CLASSES]:
        table.add_row(*class_row(row))
    console.print(table)
    if (more := len(found["classes"]) - MOST_CLASSES) > 0:
        console.print(f"and {more:,} more classes, in the files of --out")
    top5 = f"  top-5 {percent(found['top5'])}" if "top5" in found else ""
    console.print(
        f"{command.part}: {found['images']:,} images  top-1 {percent(found['top1'])}{top5}  loss {found['loss']:.4f}"
    )
    if command.out is not None:
        with locked(command.out, new=True):
            page = write_evaluation(record, command.out)
        console.print(f"page: {page}", soft_wrap=True)
