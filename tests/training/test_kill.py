"""A process that a signal ends loses nothing; one that is killed, what came after the last checkpoint."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from residualdroppath.cli import main as command_line
from residualdroppath.data.workers import end_with_parent_alone
from residualdroppath.training.trainer import Trainer

from .tiny_runs import manifests, metrics

TINY = "--depth 8 --width 2 --train-size 96 --batch-size 32 --epochs 4 --drop-path-rate 0.5 --device cpu --threads 1"
ARGUMENTS = ["train", *TINY.split()]


def train_slowly(out: Path, *options: str) -> None:
    """The command as a process of its own, slow enough to be met in the middle of an epoch."""
    iteration = Trainer.train_iteration

    def slowly(self: Trainer, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(0.1)
        return iteration(self, images, labels)

    Trainer.train_iteration = slowly
    os.dup2(os.open(out.with_name("stderr"), os.O_WRONLY | os.O_CREAT), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's background jobs
    sys.argv = ["rdp", *(options or ARGUMENTS), "--out", str(out)]
    command_line.main()


def started(out: Path, *options: str) -> Any:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["residualdroppath.cli.main", "sklearn.datasets"])
    process = server.Process(target=train_slowly, args=(out, *options))
    process.start()
    return process


def kill_after(process: Any, out: Path, num_checkpoints: int, number: signal.Signals) -> None:
    """Send a signal when so many further checkpoints have been written."""
    seen = set((out / "checkpoints").glob("*.json"))
    num_new, deadline = 0, time.monotonic() + 120
    while num_new < num_checkpoints:
        assert process.is_alive() and time.monotonic() < deadline
        found = set((out / "checkpoints").glob("*.json"))
        num_new += len(found - seen)
        seen |= found
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join(60)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert command_line.run([*ARGUMENTS, "--out", str(out)]) == 0
    return out


def require_same(out: Path, whole: Path) -> None:
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert metrics(out) == metrics(whole)


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.full),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.full),
    ],
)
def test_signal_saves_and_ends(whole: Path, tmp_path: Path, number: signal.Signals, exit_code: int) -> None:
    out = tmp_path / "run"
    process = started(out)
    kill_after(process, out, 1, number)
    assert process.exitcode == exit_code
    assert not (out / "result.json").exists()
    kept = manifests(out)[-1]
    assert 3 < kept < 12  # in the iteration that was under way, after the first epoch
    assert f"stopped by {number.name}: iteration {kept} is kept; add --resume" in (tmp_path / "stderr").read_text()
    assert command_line.run(["train", "--resume", "--out", str(out)]) == 0
    require_same(out, whole)


@pytest.mark.full
def test_signal_to_all_processes_of_a_job_saves_and_ends(tmp_path: Path) -> None:
    """As batch systems send it: to those that load images too."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "residualdroppath", *ARGUMENTS, "--epochs", "2000", "--out", str(out)]
    source = {**os.environ, "PYTHONPATH": str(Path(command_line.__file__).parents[2])}
    process = subprocess.Popen(
        [*command, "--crop-scale", "0.5", "1", "--workers", "2"],
        stderr=subprocess.PIPE, text=True, env=source, start_new_session=True,
    )  # fmt: skip
    while not manifests(out):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    kept = manifests(out)[-1]
    assert process.returncode == 143 and f"stopped by SIGTERM: iteration {kept} is kept" in said
    assert "Traceback" not in said and not (out / "result.json").exists()


def test_a_worker_ends_when_its_parent_asks() -> None:
    process = multiprocessing.get_context("fork").Process(target=wait_as_a_worker)
    process.start()
    subprocess.run([sys.executable, "-c", f"import os, time; time.sleep(0.3); os.kill({process.pid}, 15)"], check=True)
    process.join(0.3)
    assert process.is_alive()
    process.terminate()
    process.join(10)
    assert process.exitcode == 0


def wait_as_a_worker() -> None:
    end_with_parent_alone(0)
    time.sleep(60)


def test_killed_at_random_moments_and_resumed_to_the_same_weights(whole: Path, tmp_path: Path) -> None:
    """Twice, the second time after a resume; a checkpoint each iteration, so that kills hit their writing too."""
    seed = random.randrange(2**32)
    print("seed of the moments:", seed)
    moments = random.Random(seed)
    out = tmp_path / "run"
    for options in ([*ARGUMENTS, "--checkpoint-every", "1"], ["train", "--resume", "--checkpoint-every", "1"]):
        process = started(out, *options)
        started_at, wait = time.monotonic(), moments.uniform(0, 0.3)
        while not manifests(out) and time.monotonic() < started_at + 120:
            time.sleep(0.01)
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    assert manifests(out)[-1] < 12 and not (out / "result.json").exists()
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    assert command_line.run(["train", "--resume", "--out", str(out)]) == 0
    require_same(out, whole)
