"""Outputs are refused before any work, and what is there stays unless it is asked for or goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residualdroppath.cli.main import run

COMMANDS = {
    "compare": "compare --epochs 1",
    "spiral": "spiral --out spiral",
    "analyze": "analyze small_resnet --device cpu",
    "study": "study study.yaml",
}
WORK = {
    "compare": "residualdroppath.experiments.compare.run.compare",
    "spiral": "residualdroppath.experiments.spiral.run.run_spiral",
    "analyze": "residualdroppath.experiments.network_report.run.analyze",
    "study": "residualdroppath.experiments.studies.run.StudyRun.record",
    "bench": "residualdroppath.experiments.bench.measure.bench",
    "train": "residualdroppath.training.run.train",
}


class Worked(Exception):
    """The work was begun."""


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text("name: tiny\nquestion: Is it?\nvariants: {plain: {method: plain}}\n")

    def work(*args: Any, **kwargs: Any) -> Any:
        raise Worked

    for place in WORK.values():
        monkeypatch.setattr(place, work)


def refused(capsys: pytest.CaptureFixture[str], words: str) -> str:
    before = {str(path): path.read_bytes() if path.is_file() else None for path in Path.cwd().rglob("*")}
    assert run(words.split()) == 1
    assert {str(path): path.read_bytes() if path.is_file() else None for path in Path.cwd().rglob("*")} == before
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize("command", COMMANDS)
def test_records(capsys: pytest.CaptureFixture[str], command: str) -> None:
    Path("folder.json").mkdir()
    Path("there.json").write_text("[]")
    words = COMMANDS[command]
    assert "got the folder folder.json" in refused(capsys, f"{words} --record folder.json")
    assert "ends in .json" in refused(capsys, f"{words} --record x.png")
    assert "there.json is there already" in refused(capsys, f"{words} --record there.json")
    assert "cannot be written to" in refused(capsys, f"{words} --record study.yaml/below.json")
    for good in ("--record new/record.json", "--record there.json --overwrite"):
        with pytest.raises(Worked):
            run([*words.split(), *good.split()])
    assert Path("there.json").read_text() == "[]"


def test_a_bench_and_its_chart(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ends in .json" in refused(capsys, "bench small_resnet --out x.png")  # its chart would replace it
    Path("chart.png").write_bytes(b"mine")
    assert "chart.png is there already" in refused(capsys, "bench small_resnet --out chart.json")
    Path("record.json").write_text("{}")
    assert "record.json is there already" in refused(capsys, "bench small_resnet --out record.json")
    Path("folder").mkdir()
    assert "folder" in refused(capsys, "bench small_resnet --out folder")
    for good in ("--out new.json", "--out chart.json --overwrite", "--out record.json --overwrite"):
        with pytest.raises(Worked):
            run(["bench", "small_resnet", *good.split()])


@pytest.mark.parametrize(
    "words",
    ["train", "compare", "spiral", "analyze small_resnet", "study study.yaml"],
    ids=lambda words: words.split()[0],
)
def test_folders(capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert "cannot be written to" in refused(capsys, f"{words} --out study.yaml/below")
    Path("used").mkdir()
    Path("used/thesis.txt").write_text("years of work")
    assert "used is in use" in refused(capsys, f"{words} --out used")
    at_a_file = refused(capsys, f"{words} --out study.yaml")
    assert at_a_file.startswith("error: study.yaml is in use" if "study" not in words else "error: study.yaml")


def test_a_study_replaces_its_own_record_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.json").write_text(json.dumps({"study": "tiny"}))
    Path("another.json").write_text(json.dumps({"study": "another"}))
    with pytest.raises(Worked):
        run(["study", "study.yaml", "--record", "own.json"])
    assert "another.json is there already" in refused(capsys, "study study.yaml --record another.json")
    Path("out").mkdir()
    Path("out/study.json").write_text(json.dumps({"study": "another"}))
    assert "out/study.json is there already" in refused(capsys, "study study.yaml --out out")


def test_a_resumed_comparison_replaces_its_own_record_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from residualdroppath.experiments.compare.config import CompareConfig

    Path("run").mkdir()
    for seed, name in ((0, "own.json"), (1, "another.json")):
        config = CompareConfig(epochs=1, split_seed=seed).model_dump(mode="json")
        Path(name).write_text(json.dumps({"config": config}))
    words = "compare --epochs 1 --out run --resume --record"
    with pytest.raises(Worked):
        run([*words.split(), "own.json"])
    assert "another.json is there already" in refused(capsys, f"{words} another.json")
    assert "own.json is there already" in refused(capsys, "compare --epochs 1 --record own.json")


@pytest.mark.parametrize("words", [words for words in COMMANDS.values()], ids=COMMANDS)
def test_no_record_among_the_files_of_the_run(capsys: pytest.CaptureFixture[str], words: str) -> None:
    words = words.replace(" --out spiral", "") + " --out run --overwrite --record"
    for record in ("run/costs.json", "run/runs/x.json", "new/../run/config.json"):
        assert "`record` must name a file outside of run" in refused(capsys, f"{words} {record}")


def test_a_study_starts_in_a_folder_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = "study study.yaml --out"
    for page in ("run/index.html", "run/runs/plain/seed_0/config.yaml"):
        Path(page).parent.mkdir(parents=True)
        Path(page).write_text("of a run")
        assert "run is in use; choose another `out`." in refused(capsys, f"{words} run")


def test_a_study_goes_on_in_its_own_folder() -> None:
    """Also one that was killed before its first record, or while it was written."""
    Path("recorded").mkdir()
    Path("recorded/study.json").write_text(json.dumps({"study": "tiny"}))
    Path("recorded/index.html").write_text("its page")
    Path("started/runs/0123456789abcdef").mkdir(parents=True)
    Path("started/runs/locks").mkdir()
    Path("started/notes.txt").write_text("of the user")
    Path("killed").mkdir()
    Path("killed/study.json.4711.partial").write_text("{")
    for out in ("recorded", "started", "killed"):
        with pytest.raises(Worked):
            run(["study", "study.yaml", "--out", out])


def test_the_runs_of_a_study_have_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, "study study.yaml --out new --runs study.yaml/runs")
    assert "study.yaml/runs cannot be written to" in error and "choose another `runs`" in error


def test_of_two_commands_the_second_replaces_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one ends in the meantime."""
    Path("out").mkdir()

    def record(run: Any) -> dict[str, Any]:
        Path("record.json").write_text("of the other")
        return {"study": "tiny", "failures": {}}

    monkeypatch.setattr(WORK["study"], record)
    monkeypatch.setattr("residualdroppath.experiments.studies.page.write_study_page", lambda record, page: page)
    monkeypatch.setattr("residualdroppath.experiments.studies.table.terminal_tables", lambda record: [])
    words = ["study", "study.yaml", "--out", "out", "--record", "record.json"]
    assert run(words) == 1
    assert "record.json was made by another command in the meantime" in capsys.readouterr().err
    assert Path("record.json").read_text() == "of the other"
    assert json.loads(Path("record-2.json").read_text()) == json.loads(Path("out/study.json").read_text())
    Path("record.json").unlink()
    assert run([*words, "--overwrite"]) == 0
    assert json.loads(Path("record.json").read_text())["study"] == "tiny"
