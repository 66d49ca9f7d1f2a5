"""`rdp study`: a question answered over variants and seeds."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import Field

from ..errors import UserError
from ..experiments.studies.definition import Study, read_study
from ..records.files import LOCK, write_record
from ..records.outputs import may_replace, require_file, require_folder, require_place, require_record
from ..training.recipe import Threads, checked
from .record_option import RecordOption
from .terminal import table_console

if TYPE_CHECKING:
    from ..experiments.studies.engines import Engine

RECORD = "study.json"
PAGE = "index.html"
OF_RUNS = re.compile(r"[0-9a-f]{16}|costs|locks")  # in a folder of runs (`Cache`)
OF_A_KILL = re.compile(r"study\.json\.\d+\.partial")


class StudyCommand(RecordOption):
    """Train every variant of a study file over its seeds, runs in parallel, and compare them.

    Runs that have ended are kept and never repeated: start the same command again to go on.
    """

    file: Annotated[Path, tyro.conf.Positional] = Field(
        description="the study, a YAML file (docs/studies.md); or a record (.json), to be shown, with --out as a page"
    )
    out: Path | None = Field(default=None, description="folder of table and page; default: runs/study-NAME")
    runs: Path | None = Field(
        default=None, description="folder of the runs, which studies may share; default: OUT/runs"
    )
    workers: Threads | None = Field(default=None, description="trials at once; default: a core per thread, 1 on CUDA")
    threads: Threads | None = Field(default=None, description="CPU threads of a trial; default: cores / workers")
    seeds: int | None = Field(default=None, ge=1, description="this many seeds, from 0, in place of the file's")
    minutes: float | None = Field(
        default=None, gt=0, description="stop after so many, no trial begun that would not end; report what is there"
    )
    only: tuple[str, ...] = Field(default=(), description="run these variants alone")
    earlier: Path | None = Field(default=None, description="a record of this study; what it holds is not run again")
    report: bool = Field(default=False, description="run nothing, report what is there")
    data_dir: Path | None = Field(default=None, description="where named sets lie, in place of the file's")
    engine: Literal["local", "ray"] = Field(default="local", description="processes of this machine, or a Ray cluster")
    address: str | None = Field(default=None, description="of the Ray cluster; default: one started here")
    gpus: float = Field(default=0.0, ge=0, description="ray: GPUs of a trial, such as 0.25 for four on one")


def study(arguments: list[str]) -> None:
    """Parse the command line, run what is missing, and show table, record and page."""
    command = checked(lambda: tyro.cli(StudyCommand, prog="rdp study", args=arguments), "the command line")
    if command.file.suffix == ".json":
        return _show(command)
    changes: dict[str, Any] = {} if command.seeds is None else {"seeds": command.seeds}
    if command.data_dir is not None:
        changes["base"] = {"data_dir": str(command.data_dir)}
    found = read_study(command.file, **changes)
    out = command.out or Path("runs") / f"study-{found.name}"
    runs = command.runs or out / "runs"
    require_place(runs, "runs" if command.runs else "out")
    _require_out(out)

    def own(record: Any) -> bool:
        return record.get("study") == found.name

    require_record(out / RECORD, "out", overwrite=command.overwrite, own=own)
    keep = command.keeper(out, runs, own=own)
    from ..experiments.studies.cache import Cache
    from ..experiments.studies.earlier import Earlier
    from ..experiments.studies.page import write_study_page
    from ..experiments.studies.progress import StudyProgress
    from ..experiments.studies.run import StudyRun

    earlier = None if command.earlier is None else Earlier.read(command.earlier, found)
    workers, threads = _shares(command, found)
    with StudyProgress() as progress:
        run = StudyRun(
            study=found,
            cache=Cache(runs),
            engine=None if command.report else _engine(command, workers),
            threads=threads,
            progress=progress,
            only=command.only,
            earlier=earlier,
        )
        record = {**run.record(), "file": str(command.file)}
        if command.seeds is not None:
            record["seeds"] = command.seeds
    write_record(out / RECORD, record, new=not may_replace(out / RECORD, overwrite=command.overwrite, own=own))
    _print(record, write_study_page(record, out / PAGE))
    keep(record)
    if record["failures"]:
        label, error = next(iter(record["failures"].items()))
        raise UserError(f"{len(record['failures'])} trials failed; the first, {label}: {error}")


def _show(command: StudyCommand) -> None:
    """Tables of a record, and its page where a folder is named; neither runs nor data are needed."""
    unused = command.model_dump(exclude={"file", "out", "overwrite", "report"}, exclude_defaults=True)
    if unused:
        raise UserError(
            f"`{next(iter(unused))}` is an option of a study that runs, and {command.file} is a record, which is only "
            "shown; leave it out, or name the YAML file."
        )
    if command.out is not None:
        require_file(command.out / PAGE, ".html", overwrite=command.overwrite)
    from ..experiments.studies.page import write_study_page
    from ..experiments.studies.recorded import shown_record

    record = shown_record(command.file)
    if command.out is not None:
        command.out.mkdir(parents=True, exist_ok=True)
    _print(record, None if command.out is None else write_study_page(record, command.out / PAGE))


def _print(record: dict[str, Any], page: Path | None) -> None:
    from ..experiments.studies.table import terminal_tables

    console = table_console(160)
    for table in terminal_tables(record):
        console.print(table)
    if page is not None:
        console.print(f"page: {page}", soft_wrap=True)


def _require_out(out: Path) -> None:
    """A new or empty folder, or one that a study began to write to."""
    began = os.path.lexists(out / RECORD) or _are_runs(out / "runs")
    if not began and out.is_dir():
        began = all(path.name == LOCK or OF_A_KILL.fullmatch(path.name) for path in out.iterdir())
    require_folder(out, resume=True if began else None)


def _are_runs(folder: Path) -> bool:
    """Those of studies, and nothing else."""
    return folder.is_dir() and all(OF_RUNS.fullmatch(path.name) for path in folder.iterdir())


def _shares(command: StudyCommand, found: Study) -> tuple[int, int]:
    """How many trials at once, and the threads of each."""
    from ..training.runtime import pick_device

    cores = os.cpu_count() or 1
    plain = found.plain({})
    threads = command.threads or plain.threads
    at_once = 1 if pick_device(plain.device).type == "cuda" else max(1, cores // (threads or 1))
    workers = command.workers or at_once
    return workers, threads or max(1, cores // workers)


def _engine(command: StudyCommand, workers: int) -> Engine:
    from ..experiments.studies.engines import local_engine, ray_engine
    from ..experiments.studies.time_limit import TimeLimit

    if command.engine == "ray":
        if command.minutes is not None:
            raise UserError("`minutes` limits the local engine; leave it out, or `--engine ray`.")
        return ray_engine(command.address, command.gpus, command.workers)
    limit = None if command.minutes is None else TimeLimit(time.monotonic() + 60 * command.minutes)
    return local_engine(workers, limit=limit)
