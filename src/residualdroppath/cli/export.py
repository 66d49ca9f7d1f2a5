"""`rdp export RUN --format onnx --out FILE`: a trained network, or a pruned one, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import BaseModel, Field

from ..errors import UserError
from ..records.outputs import require_file
from ..training.recipe import checked
from .terminal import bar_for_each, table_console

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}


class ExportCommand(BaseModel):
    """Write a trained network as ONNX, torch.export or safetensors, load the file again, and compare the two."""

    run: Annotated[Path, tyro.conf.Positional] = Field(
        description="run folder of rdp train, or a .safetensors file that it wrote"
    )
    format: Literal["onnx", "torch-export", "safetensors"] = Field(
        description="a graph with weights, for any batch size (.onnx, .pt2), or weights alone"
    )
    out: Path = Field(description="file to write: .onnx, .pt2 or .safetensors")
    with_normalisation: bool = Field(default=False, description="take pixels 0 to 255, and normalise them in the graph")
    prune: tuple[str, ...] = Field(
        default=(), description="leave out these residual branches (rdp branches names them)"
    )
    prune_branches: int | None = Field(
        default=None,
        ge=1,
        description="leave out this many, each time that without which the loss on validation images is lowest",
    )
    data_dir: Path | None = Field(
        default=None, description="prune_branches: where named sets lie, if not as in the run"
    )
    batch_size: int = Field(default=256, ge=1, description="prune_branches: images at once")
    device: str = Field(default="cpu", description="cpu, cuda, or auto, where the network is written and compared")
    overwrite: bool = Field(default=False, description="replace a file that is there")


def export(arguments: list[str]) -> None:
    """Parse the command line, prune if that is wanted, write and compare, and show what the file takes."""
    command = checked(lambda: tyro.cli(ExportCommand, prog="rdp export", args=arguments), "the command line")
    if command.prune and command.prune_branches is not None:
        raise UserError("`prune` and `prune_branches` both choose branches; give one.")
    if command.with_normalisation and command.format == "safetensors":
        raise UserError("`with_normalisation` does not go with safetensors, which hold it as metadata; leave it out.")
    require_file(command.out, SUFFIXES[command.format], overwrite=command.overwrite)
    from ..inference.export import export as write
    from ..inference.export import input_line, require_packages
    from ..inference.labelled import own_images
    from ..inference.least_missed import least_missed
    from ..inference.network import load_network, without_branches

    require_packages(command.format)
    network = load_network(command.run, command.device)
    console = table_console(100)
    branches = tuple(dict.fromkeys(command.prune))
    if command.prune_branches is not None:
        images = own_images(network, "validation", command.data_dir)
        with bar_for_each() as on_progress:
            found = least_missed(
                network,
                images.split,
                command.prune_branches,
                command.batch_size,
                lambda done, total: on_progress("forwards", done, total),
            )
        branches = tuple(name for name, _ in found)
        for name, loss in found:
            console.print(f"without {name}, and those before: validation loss {loss:.4f}")
    parameters = sum(parameter.numel() for parameter in network.model.parameters())
    if branches:
        network = without_branches(network, branches)
        left = sum(parameter.numel() for parameter in network.model.parameters())
        counted = f"{len(branches)} {'branch' if len(branches) == 1 else 'branches'}"
        console.print(f"pruned: {counted}, {left:,} of {parameters:,} parameters left")
    command.out.parent.mkdir(parents=True, exist_ok=True)
    difference = write(
        network,
        command.format,
        command.out,
        with_normalisation=command.with_normalisation,
        new=not command.overwrite,
    )
    console.print(input_line(network, with_normalisation=command.with_normalisation), soft_wrap=True)
    console.print(f"loaded again and compared: logits differ by at most {difference:.2g}")
    console.print(f"file: {command.out}", soft_wrap=True)
