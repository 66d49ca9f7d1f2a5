"""A record is shown again, as tables and as a page, without its runs and its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residualdroppath.cli.main import run
from residualdroppath.experiments.studies.page import write_study_page
from residualdroppath.experiments.studies.recorded import shown_record
from residualdroppath.experiments.studies.table import table_rows

RECORDS = Path(__file__).parents[3] / "results" / "studies"


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record whose data are not at hand, in a folder to work in."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "record.json"
    path.write_text((RECORDS / "resnext.json").read_text())
    return path


def test_tables_and_page(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(recorded.read_text())
    assert run(["study", "record.json"]) == 0
    printed = capsys.readouterr().out
    assert all(cells[1] in printed for cells in table_rows(record)) and "page" not in printed
    assert [path.name for path in recorded.parent.iterdir()] == ["record.json"]

    assert run(["study", "record.json", "--out", "a/page"]) == 0
    page = Path("a/page/index.html")
    assert "page: a/page/index.html" in capsys.readouterr().out
    assert page.read_text() == write_study_page(record, recorded.parent / "expected.html").read_text()

    page.write_text("mine")
    assert run(["study", "record.json", "--out", "a/page"]) == 1
    assert "--overwrite" in capsys.readouterr().err and page.read_text() == "mine"
    assert run(["study", "record.json", "--out", "a/page", "--overwrite"]) == 0 and page.read_text() != "mine"


def test_figures_over_seeds_are_made_from_the_runs(recorded: Path) -> None:
    record = json.loads(recorded.read_text())
    for row in record["rows"]:
        del row["test_accuracy"], row["against"], row["feature_reuse"], row["signatures"]
    recorded.write_text(json.dumps(record))
    assert shown_record(recorded)["rows"] == json.loads((RECORDS / "resnext.json").read_text())["rows"]


@pytest.mark.parametrize("option", [["--seeds", "7"], ["--only", "plain"], ["--workers", "1"], ["--record", "b.json"]])
def test_options_of_a_study_that_runs_are_refused(
    recorded: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert run(["study", "record.json", *option, "--out", "out"]) == 1
    assert f"`{option[0][2:]}` is an option of a study that runs" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "change", [{"rows": [{}]}, {"definition": {}}, {"pending": 3}, {"threads_of_a_run": "many"}, {"question": None}]
)
def test_what_is_no_record_is_refused(
    recorded: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    recorded.write_text(json.dumps({**json.loads(recorded.read_text()), **change}))
    assert run(["study", "record.json", "--out", "out"]) == 1
    said = capsys.readouterr().err
    assert "record.json" in said and said.count("\n") == 1 and not Path("out").exists()
    assert run(["study", "none.json"]) == 1 and "none.json is no file" in capsys.readouterr().err
