"""A process that is interrupted, terminated or killed loses at most the epoch it was in."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from torch import Tensor

from residualdroppath.cli import main as command_line
from residualdroppath.training.trainer import Trainer

from .tiny_runs import metrics

TINY = "--depth 8 --width 2 --train-size 96 --batch-size 32 --epochs 4 --drop-path-rate 0.5 --device cpu --threads 1"
ARGUMENTS = ["train", *TINY.split()]


def train_slowly(out: Path) -> None:
    """The command as a process of its own, slow enough to be met in the middle of an epoch."""
    iteration = Trainer.train_iteration

    def slowly(self: Trainer, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(0.1)
        return iteration(self, images, labels)

    Trainer.train_iteration = slowly
    os.dup2(os.open(out.with_name("stderr"), os.O_WRONLY | os.O_CREAT), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's background jobs
    sys.argv = ["rdp", *ARGUMENTS, "--out", str(out)]
    command_line.main()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert command_line.run([*ARGUMENTS, "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.full),
        (signal.SIGTERM, 130),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_killed_run_goes_on_to_the_same_weights(
    whole: Path, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["residualdroppath.training.run", "sklearn.datasets"])
    out = tmp_path / "run"
    process = server.Process(target=train_slowly, args=(out,))
    process.start()
    latest = out / "checkpoints" / "latest.json"
    deadline = time.monotonic() + 60
    while not (latest.is_file() and json.loads(latest.read_text())["epoch"]):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == exit_code
    assert not (out / "result.json").exists()
    kept = json.loads(latest.read_text())["epoch"]
    assert 1 <= kept < 4
    error = (tmp_path / "stderr").read_text()
    assert "Traceback" not in error and ("interrupted" in error) == (number != signal.SIGKILL)

    assert command_line.run(["train", "--resume", "--out", str(out)]) == 0
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert metrics(out) == metrics(whole)
