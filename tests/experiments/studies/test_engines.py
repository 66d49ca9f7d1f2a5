"""Processes that work, fail, die and are met by another; and what is lost when the study is killed."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from residualdroppath.cli import main as command_line
from residualdroppath.errors import UserError
from residualdroppath.experiments.studies import engines
from residualdroppath.experiments.studies.engines import local_engine, ray_engine
from residualdroppath.experiments.studies.progress import StudyProgress
from residualdroppath.experiments.studies.trial import Outcome, Trial, run_trial
from residualdroppath.training.recipe import TrainConfig

from .tiny_studies import BASE, Inline, answer, study, written

RAY_IS_ABSENT = importlib.util.find_spec("ray") is None


def trial(label: str, folder: Path) -> Trial:
    return Trial(label, label, TrainConfig(), folder, Path("data"), False, 1, False, 1.0)


def work(each: Trial, on_epoch: Any) -> Outcome:
    """What the label of a trial names."""
    on_epoch(1, 2)
    if each.label == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if each.label == "warns":
        warnings.warn("effective rates\nare high", UserWarning, stacklevel=1)
    if each.label == "raises":
        raise RuntimeError("a fault of ours\nat length")
    if each.label == "busy once" and not (each.folder / "seen").exists():
        (each.folder / "seen").touch()
        return Outcome("busy")
    return Outcome("done", f"{os.environ['OMP_NUM_THREADS']} threads")


class Noted:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.outcomes: dict[str, Outcome] = {}

    def started(self, trial: Trial) -> None:
        self.events.append(("started", trial.label))

    def epoch(self, trial: Trial, epoch: int, epochs: int) -> None:
        self.events.append((f"epoch {epoch} of {epochs}", trial.label))

    def warned(self, trial: Trial, text: str) -> None:
        self.events.append((f"warned: {text}", trial.label))

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        self.outcomes[trial.label] = outcome


def test_what_fails_or_dies_does_not_end_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BUSY_AGAIN", 0.1)
    noted = Noted()
    labels = ["dies", "raises", "busy once", "first", "warns"]
    local_engine(1, work)([trial(label, tmp_path) for label in labels], noted)
    assert noted.outcomes == {
        "dies": Outcome("failed", "its process died (SIGKILL, perhaps for want of memory)"),
        "raises": Outcome("failed", "RuntimeError: a fault of ours"),
        "busy once": Outcome("done", "1 threads"),
        "first": Outcome("done", "1 threads"),
        "warns": Outcome("done", "1 threads"),
    }
    assert ("warned: effective rates are high", "warns") in noted.events
    assert noted.events.count(("started", "busy once")) == 2 and ("epoch 1 of 2", "dies") in noted.events
    assert not multiprocessing.active_children()


def slowly(each: Trial, on_epoch: Any) -> Outcome:
    """A trial that can be met in the middle."""

    def then_wait(epoch: int, epochs: int) -> None:
        on_epoch(epoch, epochs)
        time.sleep(0.4)

    return run_trial(each, then_wait)


def run_long(folder: Path) -> None:
    """The command as a process of its own."""
    mock.patch.object(engines, "local_engine", lambda workers, limit: local_engine(1, slowly, limit)).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT), 2)
    sys.argv = ["rdp", "study", str(folder / "study.yaml"), "--out", str(folder / "out"), "--threads", "1"]
    command_line.main()


LONG = {
    "seeds": [0],
    "base": {**BASE, "epochs": 6, "validate_every": 6},
    "variants": {"plain": {"method": "plain"}, "other": {"method": "plain", "lr": 0.05}},
}


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.full)])
def test_killed_study_goes_on_to_the_same_weights(tmp_path: Path, number: signal.Signals) -> None:
    written(tmp_path / "study.yaml", **LONG)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["residualdroppath.experiments.studies.run", "sklearn.datasets"])
    process = server.Process(target=run_long, args=(tmp_path,))
    process.start()
    runs = tmp_path / "out/runs"
    deadline = time.monotonic() + 120
    while not (begun := list(runs.glob("*/checkpoints/*.json"))):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == (130 if number == signal.SIGTERM else -number)
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    while _in_use(runs):  # workers notice within an epoch that nobody waits for them
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = begun[0].parents[1]
    assert not (kept / "result.json").exists()
    epochs = [json.loads(path.read_text())["epoch"] for path in (kept / "checkpoints").glob("*.json")]
    assert 1 <= max(epochs) < 6

    whole, rest = Inline(), Inline()
    answer(study(**LONG), tmp_path / "whole", whole)
    answer(study(**LONG), runs, rest)
    assert kept in [each.folder for each in rest.trials]
    assert len(json.loads((kept / "environment.json").read_text())) == 2  # gone on with, not begun again
    for each in whole.trials:
        assert (runs / each.key / "model.safetensors").read_bytes() == (each.folder / "model.safetensors").read_bytes()


def _in_use(runs: Path) -> bool:
    from filelock import FileLock, Timeout

    for path in runs.glob("locks/*/.lock"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            return True
    return False


@pytest.mark.skipif(not RAY_IS_ABSENT, reason="ray is installed")
def test_absent_ray_is_told() -> None:
    with pytest.raises(UserError, match=r"needs the package ray; install it"):
        ray_engine(None, 0.0)


@pytest.mark.skipif(RAY_IS_ABSENT, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")
def test_ray_makes_the_same_runs(tmp_path: Path) -> None:
    whole = answer(study(seeds=[0]), tmp_path / "here", Inline())
    found = answer(study(seeds=[0]), tmp_path / "ray", ray_engine(None, 0.0, 2))
    keys = [run["key"] for row in found["rows"] for run in row["runs"]]
    assert keys == [run["key"] for row in whole["rows"] for run in row["runs"]] and len(keys) == 2
    for key in keys:
        weights = [(tmp_path / name / key / "model.safetensors").read_bytes() for name in ("here", "ray")]
        assert weights[0] == weights[1]


def test_trials_that_warn_alike_are_heard_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = StudyProgress()
    progress.warned(trial("plain seed 0", tmp_path), "rates are high")
    progress.warned(trial("plain seed 1", tmp_path), "rates are high")
    assert capsys.readouterr().err == "plain seed 0: warning: rates are high\n"
