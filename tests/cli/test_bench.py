"""`rdp bench`: table, record and chart, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from residualdroppath.cli.main import run
from residualdroppath.errors import UserError

TINY = ["small_resnet", "--depth", "8", "--width", "4", "--image-size", "8", "--batch-size", "4", "--plans", "3"]
QUICK = [*TINY, "--floor-rounds", "1", "--device", "cpu", "--rate", "0.5"]


def test_table_record_and_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "bench.json"
    assert run(["bench", *QUICK, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for text in ("small_resnet 8x4, 8x8, batch 4, uniform rate 0.5", "ours, stop_gradient, sample", "time / floor"):
        assert text in printed
    assert "left out: timm, not a network of timm" in printed
    assert f"record: {out}" in printed and f"chart: {out.with_suffix('.png')}" in printed
    record = json.loads(out.read_text())
    assert f"{record['rows']['parameters']['per_iteration']['mean']:.2f}" in printed
    assert record["config"]["model"] == "small_resnet" and "out" not in record["config"]
    pixels = np.asarray(Image.open(out.with_suffix(".png")).convert("RGB"))
    colours = {tuple(pixel) for pixel in pixels[::3, ::3].reshape(-1, 3).tolist()}
    assert pixels.shape[1] > 800 and {(0x0B, 0x6F, 0xB8), (0x55, 0x55, 0x55)} <= colours


def test_record_lands_under_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["bench", *QUICK, "--contenders", "plain", "parameters"]) == 0
    names = sorted(path.name for path in (tmp_path / "runs" / "bench").iterdir())
    assert names == ["small_resnet-8-b4-rate0.5.json", "small_resnet-8-b4-rate0.5.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_model"], "no_such_model"),
        (["mobilenetv1_100", "--image-size", "32", "--batch-size", "2"], "No residual branch"),
        ([*TINY, "--rate", "1"], "rate"),
        ([*TINY, "--batch-size", "1"], "batch_size"),
        (["vit_tiny_patch16_224", "--image-size", "8"], "vit_tiny_patch16_224"),
    ],
)
def test_mistakes_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *arguments, "--plans", "2", "--device", "cpu"]) == 1
    output = capsys.readouterr()
    assert output.out == "" and message in output.err.splitlines()[-1]
    assert "Traceback" not in output.err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "\n  bench " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        run(["bench", "--help"])
    output = capsys.readouterr().out
    assert stop.value.code == 0
    for option in ("image-size", "batch-size", "rate", "device", "dtype", "compile", "channels-last", "out"):
        assert f"--{option}" in output


def test_what_another_bench_wrote_in_the_meantime_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    from residualdroppath.experiments.bench import report

    monkeypatch.setattr(report, "draw_chart", lambda record: Figure())
    out = tmp_path / "bench.json"
    for other in ("bench.json", "bench.png"):
        (tmp_path / other).write_text("of the other")
        with pytest.raises(UserError, match=f"{other} was made by another command .* is in .*bench-2."):
            report.write_files({"x": 1}, out, new=True)
        assert (tmp_path / other).read_text() == "of the other" and (tmp_path / "bench-2.png").is_file()
        for path in tmp_path.iterdir():
            path.unlink()
    (tmp_path / "bench.json").write_text("of the other")
    assert report.write_files({"x": 1}, out).is_file() and json.loads(out.read_text()) == {"x": 1}
