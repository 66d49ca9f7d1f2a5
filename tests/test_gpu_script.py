"""`benchmarks/gpu.py`: its commands are commands of `rdp`, and its time ends. Nothing is trained here."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from residualdroppath.cli.bench import BenchCommand
from residualdroppath.cli.study import StudyCommand
from residualdroppath.experiments.studies.definition import Budget, read_study

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def session(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of which "commands" are Python code."""
    monkeypatch.setattr(gpu, "RDP", [sys.executable, "-c"])
    (tmp_path / "work/bench").mkdir(parents=True)
    return gpu.Session(tmp_path, tmp_path / "work", time.monotonic() + 60)


@pytest.mark.parametrize("tiny", [False, True])
def test_benches_are_commands(gpu: Any, tiny: bool) -> None:
    for name in gpu.TINY_NETWORKS if tiny else gpu.NETWORKS:
        eager, compiled = (
            tyro.cli(BenchCommand, args=gpu.bench_words(name, Path("out"), compiled=compiled, tiny=tiny)[1:])
            for compiled in (False, True)
        )
        assert eager.out == Path(f"out/{name}.json") and compiled.out == Path(f"out/{name}-compiled.json")
        assert (eager.setting.compile, compiled.setting.compile) == (False, True)
        assert eager.model == compiled.model and eager.setting.device == ("cpu" if tiny else "cuda")
        assert eager.setting.dtype == "bf16" and not eager.setting.counts


@pytest.mark.parametrize("tiny", [False, True])
def test_the_study_is_one(gpu: Any, tmp_path: Path, tiny: bool) -> None:
    file = gpu.tiny_study(tmp_path / "study.yaml") if tiny else gpu.STUDY
    words = gpu.study_words(file, tmp_path, tmp_path / "record.json", 5.0, tiny=tiny)
    command = tyro.cli(StudyCommand, args=words[1:])
    assert command.minutes == 5.0 and command.file == file and command.workers
    study = read_study(command.file)
    assert study.name == "gpu-cifar10" and study.budgets == (Budget("cost", 1.0),) and not study.tuned
    configs = [study.config({}, name, {}) for name in study.variants]
    assert [config.method for config in configs] == ["plain", "drop_path", "residual_drop_path"]
    assert {(config.data, config.amp) for config in configs} == {("cifar10-jpeg", "bf16")}
    assert {config.device for config in configs} == {"cpu" if tiny else "cuda"}


def test_time_for_the_study(gpu: Any) -> None:
    assert 4 < gpu.study_minutes(540 - 120) < 5
    assert gpu.study_minutes(gpu.COMPILED) < 0


def test_steps_end_in_time(session: Any) -> None:
    seen: list[float] = []
    session.run("good", ["print('found')"], 30.0)
    session.run("bad", ["raise SystemExit(3)"], 30.0)
    session.run("long", ["import time; time.sleep(600)"], 1.0, meanwhile=lambda: seen.append(session.left))
    session.ends_at = time.monotonic()
    session.run("late", ["print('never')"], 30.0)
    steps = json.loads((session.out / "steps.json").read_text())["steps"]
    outcomes = {step["step"]: step["outcome"] for step in steps}
    assert outcomes == {"good": "done", "bad": "failed", "long": "stopped for time", "late": "no time left"}
    assert seen and session.running == [] and max(step["seconds"] for step in steps) < 30
    assert (session.out / "log.txt").read_text() == "found\n"


def test_what_has_ended_is_collected(session: Any, gpu: Any) -> None:
    runs = session.work / "study/runs"
    for key, names in {"whole": ("result", "evaluation"), "trained": ("result",)}.items():
        (runs / key).mkdir(parents=True)
        (runs / key / "config.yaml").write_text("seed: 1\n")
        for name in names:
            (runs / key / f"{name}.json").write_text(json.dumps({name: 1}))
    (runs / "costs").mkdir()
    (runs / "costs/a.json").write_text(json.dumps({"per_iteration": 0.5}))
    (session.work / "bench/net.json").write_text(json.dumps({"rows": {}}))
    session.collect()
    found = {name: json.loads((session.out / f"{name}.json").read_text()) for name in ("runs", "costs")}
    whole = {"recipe": "seed: 1\n", "result": {"result": 1}, "evaluation": {"evaluation": 1}}
    assert found["runs"] == {"costs": {"a": {"per_iteration": 0.5}}, "runs": {"whole": whole}}
    assert found["costs"] == {"net": {"rows": {}}}


def test_what_is_missing_is_named(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="a CUDA device is needed.*--tiny"):
        gpu.require(tmp_path, tiny=False)
    with pytest.raises(SystemExit, match="holds no train.parquet.*make gpu-carry"):
        gpu.require(tmp_path, tiny=True)
    (tmp_path / "train.parquet").touch()
    gpu.require(tmp_path, tiny=True)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SystemExit, match="pyarrow.parquet.*GPU_PACKAGES"):
        gpu.require(tmp_path, tiny=True)
