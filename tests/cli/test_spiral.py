"""`rdp spiral`: table, answer, record and page, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from residualdroppath.cli.spiral import spiral
from residualdroppath.errors import UserError
from residualdroppath.experiments.spiral import report

TINY = (
    "--depth 4 --width 8 --samples 64 --batch-size 32 --iterations 8 --grid 10 --frames 2 --turns 0.5 --workers 1"
).split()


def blank(figure: Figure, path: Path) -> Path:
    """In the place of figures, which take most of the time and have tests of their own."""
    Image.new("RGB", (1, 1)).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def test_a_run_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "save_figure", blank)
    out, record = tmp_path / "run", tmp_path / "deep" / "spiral.json"
    arguments = [*TINY, "--seeds", "2", "--out", str(out), "--record", str(record)]
    spiral(arguments)
    printed = capsys.readouterr().out
    for text in ("untrained", "ResidualDroppath − plain", "recreated units", "Does ResidualDroppath lower", "95 %"):
        assert text in printed
    assert f"page: {out / 'index.html'}" in printed and (out / "index.html").is_file()
    kept = json.loads(record.read_text())
    assert kept == json.loads((out / "record.json").read_text()) and kept["config"]["seeds"] == 2
    with pytest.raises(UserError, match="in use"):
        spiral(arguments)
    spiral([*arguments, "--resume"])
    assert json.loads(record.read_text())["rows"] == kept["rows"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "1"], "arms"),
        (["--noise", "-1"], "noise"),
        (["--depth", "1"], "depth"),
        (["--seeds", "0"], "seeds"),
        (["--drop-path-rate", "1"], "drop_path_rate"),
        (["--methods", "plain", "plain"], "methods"),
        (["--samples", "64", "--batch-size", "65"], "batch_size"),
        (["--grid", "4"], "grid"),
    ],
)
def test_mistakes_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        spiral([*arguments, "--out", str(tmp_path / "run")])
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        spiral(["--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    for option in ("arms", "turns", "noise", "depth", "width", "methods", "seeds", "resume", "record", "out"):
        assert f"--{option}" in printed
