"""Where trials run: in processes of this machine, or on a cluster through Ray; the trial is the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from ...errors import UserError, first_line
from .time_limit import TimeLimit
from .trial import Outcome, Trial, run_trial

BUSY_AGAIN = 5.0  # seconds until a run that another process makes is looked at again


class Events(Protocol):
    """What an engine reports."""

    def started(self, trial: Trial) -> None: ...

    def epoch(self, trial: Trial, epoch: int, epochs: int) -> None: ...

    def warned(self, trial: Trial, text: str) -> None: ...

    def ended(self, trial: Trial, outcome: Outcome) -> None: ...


Engine = Callable[[Sequence[Trial], Events], None]


@dataclass
class _Worker:
    process: Any
    connection: Connection
    trial: Trial | None = None
    since: float = 0.0  # when the trial was sent


def local_engine(
    workers: int,
    work: Callable[[Trial, Callable[[int, int], None]], Outcome] = run_trial,
    limit: TimeLimit | None = None,
) -> Engine:
    """Processes of this machine. One that dies is reported as its trial's failure, and another takes its place.

    When the time of `limit` is over, the trials that run are stopped; their whole epochs are kept.
    """
    limit = limit or TimeLimit()

    def run(trials: Sequence[Trial], events: Events) -> None:
        waiting = deque(trials)
        again: list[tuple[float, Trial]] = []
        pool: list[_Worker] = []
        try:
            while (waiting or again or any(worker.trial for worker in pool)) and not limit.is_over:
                due = [pair for pair in again if pair[0] <= time.monotonic()]
                for pair in due:
                    again.remove(pair)
                    waiting.append(pair[1])
                if waiting and not limit.leaves_room_for(waiting[0].work):
                    waiting.clear()  # those after it too: seeds are to end whole
                while len(pool) < min(workers, len(waiting) + sum(worker.trial is not None for worker in pool)):
                    pool.append(_start_worker(work, waiting[0].threads))
                for worker in pool:
                    if worker.trial is None and waiting:
                        worker.trial, worker.since = waiting.popleft(), time.monotonic()
                        _send(worker)
                        events.started(worker.trial)
                if not pool:
                    time.sleep(1.0)
                ready = wait([worker.connection for worker in pool], timeout=1.0)
                for worker in [worker for worker in pool if worker.connection in ready]:
                    trial, message = worker.trial, _receive(worker)
                    if trial is None:
                        if message is None:  # died with nothing to do
                            pool.remove(worker)
                        continue
                    if isinstance(message, tuple):
                        events.epoch(trial, *message)
                        continue
                    if isinstance(message, str):
                        events.warned(trial, message)
                        continue
                    worker.trial = None
                    if message is None:
                        pool.remove(worker)
                        message = Outcome("failed", f"its process died ({_reason(worker.process)})")
                    events.ended(trial, message)
                    if message.status == "busy":
                        again.append((time.monotonic() + BUSY_AGAIN, trial))
                    elif message.status == "done":
                        limit.note(trial.work, time.monotonic() - worker.since)
        finally:
            for worker in pool:
                worker.process.terminate()
            for worker in pool:
                worker.process.join()

    return run


def _start_worker(work: Any, threads: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work))  # may have children: readers of data
    libraries = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in libraries}
    os.environ.update(dict.fromkeys(libraries, str(threads)))  # read when a process starts
    try:
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    theirs.close()
    return _Worker(process, ours)


def _send(worker: _Worker) -> None:
    try:
        worker.connection.send(worker.trial)
    except OSError:
        pass  # it has died: receiving from it will find the same


def _receive(worker: _Worker) -> Any:
    try:
        return worker.connection.recv()
    except (EOFError, OSError):
        return None


def _reason(process: Any) -> str:
    process.join(10)
    code = process.exitcode
    if code is not None and code < 0:
        return signal.Signals(-code).name + (", perhaps for want of memory" if code == -signal.SIGKILL else "")
    return f"exit code {code}"


def _serve(connection: Connection, work: Callable[[Trial, Callable[[int, int], None]], Outcome]) -> None:
    """Trials one after another, until the other end is closed or gone; it has the bars, and says warnings too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.showwarning = lambda message, *_, **__: connection.send(" ".join(str(message).split()))
    try:
        while True:
            trial = connection.recv()
            connection.send(_guarded(work, trial, lambda epoch, epochs: connection.send((epoch, epochs))))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # nobody waits for the rest


def _guarded(work: Any, trial: Trial, on_epoch: Callable[[int, int], None]) -> Outcome:
    try:
        return work(trial, on_epoch)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # a fault of ours in one trial must not end the others
        return Outcome("failed", f"{type(error).__name__}: {first_line(error)}")


def ray_engine(address: str | None, gpus: float, at_once: int | None = None) -> Engine:
    """A cluster. The folder of runs and the data must be at the same path on all of its machines."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "`--engine ray` needs the package ray; install it (pip install 'residualdroppath[ray]'), or leave out "
            "`--engine`."
        ) from error

    def run(trials: Sequence[Trial], events: Events) -> None:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="warning")
        remote = ray.remote(max_retries=0)(_run_quietly)
        waiting, running, again = deque(trials), {}, []
        limit = at_once or 10_000
        try:
            while waiting or running or again:
                waiting.extend(trial for due, trial in again if due <= time.monotonic())
                again = [pair for pair in again if pair[0] > time.monotonic()]
                while waiting and len(running) < limit:
                    trial = waiting.popleft()
                    reference = remote.options(num_cpus=trial.threads, num_gpus=gpus).remote(trial)
                    running[reference] = trial
                    events.started(trial)
                ended, _ = ray.wait(list(running), timeout=1.0) if running else (time.sleep(1.0) or [], [])
                for reference in ended:
                    trial = running.pop(reference)
                    try:
                        outcome = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        outcome = Outcome("failed", f"its process died ({first_line(error)})")
                    events.ended(trial, outcome)
                    if outcome.status == "busy":
                        again.append((time.monotonic() + BUSY_AGAIN, trial))
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            ray.shutdown()

    return run


def _run_quietly(trial: Trial) -> Outcome:
    return _guarded(run_trial, trial, lambda epoch, epochs: None)
