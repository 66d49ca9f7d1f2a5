"""What is begun, and what is stopped, when a study has little time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from residualdroppath.cli.main import run
from residualdroppath.experiments.studies import time_limit
from residualdroppath.experiments.studies.engines import local_engine
from residualdroppath.experiments.studies.progress import StudyProgress
from residualdroppath.experiments.studies.time_limit import TimeLimit
from residualdroppath.experiments.studies.trial import Outcome, Trial
from residualdroppath.training.recipe import TrainConfig

from .tiny_studies import BASE, written


def test_room_by_the_pace_of_the_trial_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time_limit.time, "monotonic", lambda: now[0])
    limit = TimeLimit(ends_at=160.0)
    assert limit.leaves_room_for(1e9) and not limit.is_over  # nothing is known yet
    limit.note(work=10.0, seconds=90.0)  # it has read the data
    limit.note(work=10.0, seconds=20.0)
    assert limit.leaves_room_for(29.9) and not limit.leaves_room_for(30.0)
    now[0] = 160.0
    assert limit.is_over and not limit.leaves_room_for(0.0)
    assert TimeLimit().leaves_room_for(1e9) and not TimeLimit().is_over


def work(each: Trial, on_epoch: Any) -> Outcome:
    time.sleep({"quick": 0.2, "endless": 90.0}[each.key])
    return Outcome("done")


class Clock(StudyProgress):
    """Events that change the limit: `when` one such event comes, so many seconds are left."""

    def __init__(self, limit: TimeLimit, when: str, seconds: float):
        super().__init__()
        self.limit, self.when, self.seconds, self.events = limit, when, seconds, []

    def note(self, event: str) -> None:
        self.events.append(event)
        if event == self.when:
            self.limit.ends_at = time.monotonic() + self.seconds

    def started(self, trial: Trial) -> None:
        super().started(trial)
        self.note(f"{trial.label} started")

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        super().ended(trial, outcome)
        self.note(f"{trial.label} {outcome.status}")


@pytest.mark.parametrize(
    ("when", "seconds", "events"),
    [
        ("b started", 0.0, ["a started", "a done", "b started"]),  # what runs is stopped
        ("a done", 60.0, ["a started", "a done"]),  # a trial of a thousand times the work is not begun
    ],
)
def test_stopped_and_not_begun(
    when: str, seconds: float, events: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def trial(label: str, key: str, work: float) -> Trial:
        return Trial(key, label, TrainConfig(), tmp_path, tmp_path, False, 1, False, work)

    limit = TimeLimit()
    trials = [trial("a", "quick", 1.0), trial("b", "endless", 1000.0 if seconds else 0.0), trial("c", "quick", 0.0)]
    clock = Clock(limit, when, seconds)
    clock.begin("runs", trials)
    started = time.monotonic()
    local_engine(1, work, limit)(trials, clock)
    clock.end()
    assert clock.events == events and time.monotonic() - started < 60
    assert clock.tasks == {} and clock.progress.tasks == []
    told = "time is up: 2 of 3 trials have not ended; run the same command to go on"
    assert told in capsys.readouterr().err


def test_the_record_of_a_study_without_time_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "study.yaml", base={**BASE, "epochs": 1000}, seeds=[0])
    assert run(["study", str(file), "--out", str(tmp_path / "out"), "--minutes", "0.00001"]) == 0
    assert "time is up: 2 of 2" in capsys.readouterr().err
    assert (tmp_path / "out/study.json").is_file() and (tmp_path / "out/index.html").is_file()


def test_a_cluster_has_no_such_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "study.yaml")
    assert run(["study", str(file), "--out", str(tmp_path / "out"), "--engine", "ray", "--minutes", "1"]) == 1
    assert "`minutes` limits the local engine" in capsys.readouterr().err
