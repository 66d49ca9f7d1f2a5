"""`rdp eval`, `rdp predict` and `rdp export`: what is printed and written, and what is refused before any work."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.files import encoded
from residualdroppath.cli.main import run
from residualdroppath.records.tensors import read_about

TINY = "--depth 8 --width 2 --train-size 64 --batch-size 32 --epochs 1 --device cpu --method plain --out run".split()


@pytest.fixture(autouse=True)
def workplace(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, and images in `in`."""
    folder = tmp_path_factory.getbasetemp() / "eval-and-predict"
    if not folder.exists():
        (folder / "in").mkdir(parents=True)
        for number in range(3):
            (folder / f"in/{number}.png").write_bytes(encoded(np.full((9, 9), 80 * number, np.uint8)))
        monkeypatch.chdir(folder)
        assert run(["train", *TINY]) == 0
    monkeypatch.chdir(folder)
    return folder


def refused(capsys: pytest.CaptureFixture[str], words: str) -> str:
    before = sorted(Path.cwd().rglob("*"))
    capsys.readouterr()
    assert run(words.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and sorted(Path.cwd().rglob("*")) == before
    return error


def test_eval(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(f"eval run --part test --out {tmp_path}/e".split()) == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "e/evaluation.json").read_text())
    result = json.loads(Path("run/result.json").read_text())
    assert record["top1"] == pytest.approx(result["test_accuracy"]) and record["part"] == "test"
    assert f"test: 360 images  top-1 {100 * record['top1']:.2f} %  top-5" in printed and "page: " in printed
    assert run(["eval", "run/model.safetensors", "--data", "digits", "--part", "test"]) == 0
    assert f"top-1 {100 * record['top1']:.2f} %" in capsys.readouterr().out


def test_predict(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("in/broken.png").write_bytes(b"x")
    try:
        assert run(f"predict run in in/2.png --top-k 2 --out {tmp_path}/new/p.csv".split()) == 0
    finally:
        Path("in/broken.png").unlink()
    printed = capsys.readouterr()
    assert "3 images, 1 skipped" in printed.out and "skipped: in/broken.png cannot be decoded" in printed.err
    rows = list(csv.reader((tmp_path / "new/p.csv").read_text().splitlines()))
    assert rows[0] == ["file", "class", "probability", "class_2", "probability_2"]
    assert [row[0] for row in rows[1:]] == ["in/0.png", "in/1.png", "in/2.png"]
    assert all(row[1] in "0123456789" and 0 < float(row[4]) <= float(row[2]) <= 1 for row in rows[1:])


def test_what_decoding_changed_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in "37":
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "x.png").write_bytes(encoded(np.zeros((9, 9, 4), np.uint8)))
    said = "transparent parts composed on white"
    assert run(f"predict run {tmp_path}/set --out {tmp_path}/p.csv".split()) == 0
    assert f"2 images: {said}\n" in capsys.readouterr().err
    assert run(f"eval run --data {tmp_path}/set --part test --out {tmp_path}/e".split()) == 0
    assert f"2 test images: {said}\n" in capsys.readouterr().out
    assert f"2 test images: {said}" in json.loads((tmp_path / "e/evaluation.json").read_text())["notes"]


def test_refused_before_any_work(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from residualdroppath.inference import network

    with monkeypatch.context() as patch:
        patch.setattr(network, "load_network", lambda *args: pytest.fail("work was begun"))
        assert "run is in use; choose another `out`." in refused(capsys, "eval run --out run")  # there is no resume
        assert "ends in .csv" in refused(capsys, "predict run in --out p.txt")
        assert "cannot be written to" in refused(capsys, "predict run in --out in/0.png/p.csv")
        assert "got none" in refused(capsys, "predict run --out p.csv")
    assert "`top_k` must be at most the network's 10 classes" in refused(
        capsys, "predict run in --top-k 11 --out p.csv"
    )
    assert "is neither a folder nor a file" in refused(capsys, "predict run nothing --out p.csv")
    assert "is not there, or no file; name the folder of a run" in refused(capsys, "eval nothing")
    Path("several/plain").mkdir(parents=True)
    Path("several/config.yaml").write_text("epochs: 1\n")
    Path("several/plain/seed_0").symlink_to(Path("run").resolve())
    assert "it holds the runs several/plain/seed_0: name one" in refused(capsys, "eval several")
    assert "several/plain/seed_0: name one" in refused(capsys, "train --weights several")
    assert "is not the folder of a run (no config.yaml)" in refused(capsys, "eval in")
    Path("p.csv").write_text("mine")
    assert "p.csv is there already" in refused(capsys, "predict run in --out p.csv")
    assert run(["predict", "run", "in", "--out", "p.csv", "--overwrite"]) == 0
    Path("p.csv").unlink()
    assert run(["predict", "run", "run/config.yaml", "--out", "p.csv"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["error: None of the images could be read; nothing was written."]
    assert lines[0].startswith("skipped: run/config.yaml cannot be decoded")
    assert not Path("p.csv").exists()


def test_export(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = f"export run --format safetensors --prune-branches 1 --out {tmp_path}/new/x.safetensors"
    assert run(words.split()) == 0
    printed = capsys.readouterr().out
    assert "without blocks." in printed and "parameters left" in printed and "differ by at most" in printed
    assert run(["eval", f"{tmp_path}/new/x.safetensors", "--part", "test"]) == 0
    assert run(f"export run --format torch-export --out {tmp_path}/x.pt2 --prune blocks.0 blocks.2".split()) == 0
    assert "pruned: 2 branches" in capsys.readouterr().out
    assert run(f"export run --format safetensors --out {tmp_path}/y.safetensors --prune blocks.1 blocks.1".split()) == 0
    assert "pruned: 1 branch," in capsys.readouterr().out
    about = read_about(tmp_path / "y.safetensors")
    assert about is not None and about["pruned"] == ["blocks.1"]


@pytest.mark.parametrize("words", ["eval", "predict in --out p.csv", "export --format safetensors --out x.safetensors"])
def test_a_pipe_is_no_weights(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    command, *rest = words.split()
    error = refused(capsys, " ".join([command, str(tmp_path / "x.safetensors"), *rest]))
    assert "x.safetensors is not there, or no file" in error


def test_export_refused_before_any_work(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from residualdroppath.inference import export, network

    with monkeypatch.context() as patch:
        patch.setattr(network, "load_network", lambda *args: pytest.fail("work was begun"))
        words = "export run --out x.onnx --format onnx"
        assert "ends in .pt2, got x.onnx" in refused(capsys, "export run --out x.onnx --format torch-export")
        assert "both choose branches" in refused(capsys, f"{words} --prune a --prune-branches 1")
        assert "does not go with safetensors" in refused(
            capsys, "export run --out x.safetensors --format safetensors --with-normalisation"
        )
        patch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
        assert "onnxscript is not installed: pip install 'residualdroppath[export]'" in refused(capsys, words)
    assert "names of residual branches of the model, blocks.0" in refused(capsys, f"{words} --prune layer1.0")


@pytest.mark.parametrize(
    "words", ["predict run in --out {}/x.csv", "export run --format safetensors --out {}/x.safetensors"]
)
def test_what_another_command_wrote_in_the_meantime_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    from residualdroppath.inference import network

    load, words = network.load_network, words.format(tmp_path)
    out = Path(words.split()[-1])

    def meanwhile(*args: Any) -> Any:
        out.write_text("of the other")
        return load(*args)

    monkeypatch.setattr(network, "load_network", meanwhile)
    assert run(words.split()) == 1
    assert f"{out} was made by another command" in capsys.readouterr().err
    assert out.read_text() == "of the other" and len(list(tmp_path.iterdir())) == 2
    assert run([*words.split(), "--overwrite"]) == 0
    assert out.read_bytes() == out.with_stem("x-2").read_bytes()
