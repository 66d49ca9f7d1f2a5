"""`spiral`: a configuration and a folder in; networks, record, figures and a page out."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from ...records.environment import environment
from ...records.files import write_json
from ...records.tensors import write_arrays, write_weights
from ...training.runtime import derived_seed
from .config import SpiralConfig
from .data import make_data
from .development import History, developments
from .folder import SpiralFolder
from .measures import measure
from .network import make_network
from .snapshots import Frames, portrait
from .summary import summarise
from .training import power_law, train_network

OnProgress = Callable[[int, int], None]  # iterations done, and to be done, of all networks together
MEASURING = 0.5  # what measuring a network counts in the progress, in trainings


@dataclass(frozen=True)
class Job:
    """One network to be trained (unless `row` is `untrained`) and measured."""

    config: SpiralConfig
    row: str
    seed: int
    folder: SpiralFolder
    index: int = 0

    @property
    def size(self) -> int:
        """Its share of the work, in iterations."""
        measuring = max(1, round(MEASURING * self.config.iterations))
        return measuring + (0 if self.row == "untrained" else self.config.iterations)


def run_spiral(
    config: SpiralConfig,
    out: Path,
    *,
    resume: bool = False,
    workers: int | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, Any]:
    """Train and measure every network that `out` does not hold yet, and return (and keep) the record."""
    folder = SpiralFolder(out)
    with folder.opened(config, resume=resume):
        wanted = [(row, seed) for seed in range(config.seeds) for row in config.rows]
        missing = [(row, seed) for row, seed in wanted if not folder.finished(row, seed)]
        jobs = [Job(config, row, seed, folder, index) for index, (row, seed) in enumerate(missing)]
        _work(jobs, workers or os.cpu_count() or 1, on_progress)
        results = {row: [folder.result(row, seed) for seed in range(config.seeds)] for row in config.rows}
        record = {
            "config": config.model_dump(mode="json"),
            "environment": environment(torch.device("cpu")),
            "rows": summarise(config, results),
        }
        write_json(out / "record.json", record)
        return record


def _work(jobs: list[Job], workers: int, on_progress: OnProgress) -> None:
    """All jobs, in this process or in several; each runs on one thread, so that results do not depend on it."""
    total = sum(job.size for job in jobs)
    if min(workers, len(jobs)) <= 1:
        done = 0
        for job in jobs:
            run_job(job, lambda iteration, done=done: on_progress(done + iteration, total))
            done += job.size
            on_progress(done, total)
        return
    context = multiprocessing.get_context("spawn")
    counters = context.Array("q", len(jobs))
    executor = ProcessPoolExecutor(min(workers, len(jobs)), context, _remember, (counters,))
    try:
        waiting = {executor.submit(_run_counted, job) for job in jobs}
        while waiting:
            ended, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in ended:
                future.result()
            on_progress(sum(counters[:]), total)
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    executor.shutdown()


def run_job(job: Job, advance: Callable[[int], None]) -> None:
    """Train, measure, and write the network's folder; its result last."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            _run_job(job, advance)
    finally:
        torch.set_num_threads(threads)


def _run_job(job: Job, advance: Callable[[int], None]) -> None:
    config, data = job.config, make_data(job.config)
    frames = Frames(power_law(config.iterations, config.frames) if job.seed == 0 else [])
    history = History.of(config)
    if job.row == "untrained":
        network = make_network(config, derived_seed(job.seed, "spiral network")).eval()
    else:

        def on_iteration(network: Any, iteration: int) -> None:
            frames(network, iteration)
            history(network, iteration)
            advance(iteration)

        network = train_network(config, job.row, job.seed, data.train, on_iteration)  # pyright: ignore[reportArgumentType]
    developed = developments(history) if history.streams else None
    path = job.folder.of(job.row, job.seed)
    path.mkdir(parents=True, exist_ok=True)
    if job.seed == 0:
        over_training = frames.arrays() | {"groups": developed.groups} if developed else {}
        write_arrays(path / "pictures.npz", portrait(network, data) | over_training)
    write_weights(path / "model.safetensors", network.state_dict())
    write_json(path / "result.json", measure(network, data, job.seed, developed))


_counters: Any = None


def _remember(counters: Any) -> None:
    global _counters
    _counters = counters


def _run_counted(job: Job) -> None:
    def advance(iteration: int) -> None:
        _counters[job.index] = iteration

    run_job(job, advance)
    advance(job.size)
