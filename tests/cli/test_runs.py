"""`rdp runs` and `rdp report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residualdroppath.cli.main import run
from residualdroppath.cli.runs_table import data_name

ROWS = [
    {"epoch": epoch, "iteration": 3 * epoch, "train_seconds": 40.0, "validation_accuracy": accuracy}
    for epoch, accuracy in ((1, 0.5), (2, 0.75), (3, 0.625))
]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs and a damaged one, without any training."""
    monkeypatch.chdir(tmp_path)
    for method, seed in (("plain", 0), ("residual_drop_path", 1)):
        folder = Path(f"runs/[{method}]-{seed}")
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(f"method: {method}\nseed: {seed}\nepochs: 5\ndata: wds/sets/birds\n")
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("runs/[plain]-0/result.json").write_text(json.dumps({"test_accuracy": 0.875}))
    Path("runs/broken/checkpoints").mkdir(parents=True)
    Path("runs/broken/config.yaml").write_text("colour: <b>blue\n")


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert run([*words]) == code
    captured = capsys.readouterr()
    assert not captured.err if code == 0 else captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.out if code == 0 else captured.err


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "runs").splitlines()
    assert lines[0].split() == "run test validation best (epoch) epoch time state method model data seed".split()
    shown = [line.split() for line in lines[2:5]]
    assert shown[0][:2] == ["broken", "-"] and "damaged" in shown[0]
    expected = "[plain]-0 87.50 62.50 75.00 (2) 3/5 2 min 0 s ended plain small_resnet wds/birds 0"
    assert shown[1] == expected.split()
    assert shown[2][1] == "-" and "stopped" in shown[2]
    assert "damaged: `colour` is not an option (in runs/broken/config.yaml)" in lines[-1]


def test_json_alone(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "runs", "runs", "--json", "--sort", "test"))
    assert [run["path"] for run in found] == ["runs/[plain]-0", "runs/broken", "runs/[residual_drop_path]-1"]
    assert found[0]["best_epoch"] == 2 and found[0]["train_seconds"] == 120 and found[1]["state"] == "damaged"


def test_folders_without_runs(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert printed(capsys, "runs", "empty") == "no runs under empty\n"
    assert json.loads(printed(capsys, "runs", "empty", "--json")) == []
    assert "which is not there" in printed(capsys, "runs", "nowhere", code=1)
    assert "which holds none" in printed(capsys, "report", "empty", code=1)
    assert "which is not there" in printed(capsys, "report", "nowhere", code=1)
    assert "at least one folder" in printed(capsys, "report", code=1)
    assert not Path("runs/report").exists()


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    output = printed(capsys, "report", "runs/[plain]-0", "runs", "--out", "page")
    assert output.count("[plain]-0") == 1 and "page: page/index.html" in output
    text = Path("page/index.html").read_text()
    assert "<title>3 runs</title>" in text and "<td>75.00 (2)</td>" in text and "&lt;b&gt;" not in text
    assert "<td>method</td><td>None</td><td>plain</td><td>residual_drop_path</td>" in text
    assert "could not be read: `colour` is not an option" in text and Path("page/curves.png").is_file()


def test_a_name_of_a_run_is_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/[plain]-0").rename(r"runs/a$\foo$")
    assert r"a$\foo$" in printed(capsys, "report", "runs", "--out", "page")
    assert r"a$\foo$" in Path("page/index.html").read_text()


def test_report_of_runs_with_nothing_to_draw(capsys: pytest.CaptureFixture[str]) -> None:
    assert "page: page/index.html" in printed(capsys, "report", "runs/broken", "--out", "page")


def test_page_is_replaced_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "report", "runs/[plain]-0", "--out", "page")
    assert "--overwrite the page" in printed(capsys, "report", "runs", "--out", "page", code=1)
    assert "<title>1 run</title>" in Path("page/index.html").read_text()
    printed(capsys, "report", "runs", "--out", "page", "--overwrite")
    assert "<title>3 runs</title>" in Path("page/index.html").read_text()
    printed(capsys, "report", "runs", "--out", "new/page", "--overwrite")
    run_folder = "runs/[plain]-0"
    assert "holds more than a page" in printed(capsys, "report", "runs", "--out", run_folder, "--overwrite", code=1)
    assert "in use" in printed(capsys, "report", "runs", "--out", run_folder, code=1)


@pytest.mark.parametrize(
    "data, name", [("digits", "digits"), ("/a/birds", "birds"), ("hfds/a/cifar10", "hfds/cifar10"), ("b.tar", "b.tar")]
)
def test_names_of_data(data: str, name: str) -> None:
    assert data_name(data) == name
