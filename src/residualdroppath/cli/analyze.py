"""`rdp analyze TARGET`: what the layers and branches of any residual network do, alone or beside another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.progress import TimeElapsedColumn, TimeRemainingColumn

from ..experiments.network_report.config import AnalyzeConfig, AnalyzeSetting
from ..records.files import locked
from ..records.outputs import require_folder
from ..training.recipe import checked
from .record_option import RecordOption
from .terminal import bar_for_each, table_console

WIDTH = 120


class AnalyzeCommand(RecordOption):
    """Measure the residual branches and layers of a network, and draw them as one page."""

    target: Annotated[str, tyro.conf.Positional] = Field(
        description="run folder of rdp train, .safetensors file, small_resnet, a timm name, torchvision/NAME, or "
        "transformers/CLASS"
    )
    compare: str | None = Field(default=None, description="another one, to lay beside the first")
    out: Path | None = Field(default=None, description="folder for record and page; default: under runs/analyze/")
    setting: Annotated[AnalyzeSetting, tyro.conf.arg(name="")] = AnalyzeSetting()


def analyze(arguments: list[str]) -> None:
    """Parse the command line, measure, and show table, record and page."""
    command = checked(lambda: tyro.cli(AnalyzeCommand, prog="rdp analyze", args=arguments), "the command line")
    config = AnalyzeConfig(target=command.target, compare=command.compare, **command.setting.model_dump())
    out = command.out or Path("runs/analyze") / "-".join(
        "-".join(Path(name).parts[-2:]).replace(".", "-") for name in (config.target, config.compare) if name
    )
    require_folder(out)
    keep = command.keeper(out)
    from ..experiments.network_report.report import write_report
    from ..experiments.network_report.run import analyze as measure
    from ..experiments.network_report.summary import skipped_lines, terminal_table

    claimed = locked(out, in_use="an analysis that still goes on; choose another `out`", new=True)
    with claimed, bar_for_each(TimeElapsedColumn(), TimeRemainingColumn()) as on_progress:
        analysis = measure(config, on_progress)
        on_progress("drawing", 0, 1)
        page = write_report(analysis, out)
        on_progress("drawing", 1, 1)
    console = table_console(WIDTH)
    console.print(terminal_table(analysis.record))
    for line in skipped_lines(analysis.record):
        console.print(line)
    gigabytes = analysis.record["peak_memory_bytes"] / 2**30
    console.print(f"{analysis.record['seconds']:,.0f} seconds, at most {gigabytes:.2f} GiB of memory")
    console.print(f"record: {out / 'record.json'}\npage: {page}", soft_wrap=True)
    keep(analysis.record)
