"""`rdp bench MODEL`: what an iteration costs, beside plain training and what users would pick instead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import BaseModel, Field
from rich.progress import TimeRemainingColumn

from ..experiments.bench.config import BenchConfig, BenchSetting
from ..records.outputs import require_free, require_record
from ..training.recipe import checked
from .terminal import bar_for_each, table_console

WIDTH = 160


class BenchCommand(BaseModel):
    """Time iterations of several ways to train a network in turn with plain ones, and print the ratios."""

    model: Annotated[str, tyro.conf.Positional] = Field(
        description="small_resnet, a timm name, torchvision/NAME, or transformers/CLASS"
    )
    out: Path | None = Field(default=None, description="JSON record to write, a chart beside it; default: runs/bench/")
    overwrite: bool = Field(default=False, description="replace a record and a chart that are there")
    setting: Annotated[BenchSetting, tyro.conf.arg(name="")] = BenchSetting()


def bench(arguments: list[str]) -> None:
    """Parse the command line, measure, and show table, record and chart."""
    command = checked(lambda: tyro.cli(BenchCommand, prog="rdp bench", args=arguments), "the command line")
    config = BenchConfig(model=command.model, **command.setting.model_dump())
    name = config.model.replace("/", "-")
    out = (
        command.out or Path("runs/bench") / f"{name}-{config.image_size}-b{config.batch_size}-rate{config.rate:g}.json"
    )
    require_record(out, "out", overwrite=command.overwrite)
    require_free(out.with_suffix(".png"), "out", overwrite=command.overwrite)
    from ..experiments.bench.measure import bench as measure
    from ..experiments.bench.report import LEGEND, terminal_table, write_files

    with bar_for_each(TimeRemainingColumn()) as on_progress:
        record = measure(config, on_progress)
    console = table_console(WIDTH)
    console.print(terminal_table(record))
    console.print(LEGEND)
    if record["plain_over_floor"]:
        console.print(f"The floor of plain training, by the same parts, is {1 / record['plain_over_floor']:.2f} of it.")
    for name, reason in record["left_out"].items():
        console.print(f"left out: {name}, {reason}")
    chart = write_files(record, out, new=not command.overwrite)
    console.print(f"record: {out}\nchart: {chart}", soft_wrap=True)
