"""`rdp analyze`: table, record and page, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from residualdroppath.cli.analyze import analyze
from residualdroppath.errors import UserError
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import train

TINY = "--samples 40 --probe-samples 40 --deletion-samples 32 --sets 2 --device cpu".split()
SMALL = ["small_resnet", "--depth", "8", "--width", "2", *TINY]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "plain" / "seed_0"
    train(TrainConfig(depth=8, width=2, train_size=96, batch_size=32, epochs=1, method="plain", device="cpu"), out)
    return out


def test_a_run_from_the_command_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, record = tmp_path / "out", tmp_path / "deep" / "record.json"
    measures = ["--measures", "streams", "deletion"]
    arguments = [str(run), "--compare", str(run), "--out", str(out), "--record", str(record), *TINY, *measures]
    analyze(arguments)
    printed = capsys.readouterr().out
    for text in ("plain, seed 0", "difference", "accuracy (%)", "+0.0", "GiB of memory", "3 residual branches"):
        assert text in printed
    assert f"page: {out / 'index.html'}" in printed and (out / "index.html").is_file()
    kept = json.loads(record.read_text())
    assert kept == json.loads((out / "record.json").read_text()) and kept["peak_memory_bytes"] > 0
    assert kept["config"]["measures"] == ["streams", "deletion"] and len(kept["networks"]) == 2
    assert kept["networks"][0]["measures"] == kept["networks"][1]["measures"]
    with pytest.raises(UserError, match="in use"):
        analyze(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_network", *TINY], "no_such_network"),
        ([*SMALL, "--measures", "cka", "beauty"], "beauty"),
        ([*SMALL, "--measures", "cka", "cka"], "different"),
        ([*SMALL, "--samples", "3"], "samples"),
        ([*SMALL, "--data", "nowhere"], "nowhere"),
        (["torchvision/squeezenet1_1", "--image-size", "32", *TINY], "no residual branch"),
        (["transformers/BertModel", *TINY], "classify images"),
        (["missing.safetensors", *TINY], "not there"),
        ([*SMALL, "--part", "validation", "--device", "toaster"], "device"),
    ],
)
def test_mistakes_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        analyze([*arguments, "--out", str(tmp_path / "out")])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_damaged_and_wrong_weights(run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not weights")
    whole = str(run / "model.safetensors")
    out = ["--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="safetensors"):
        analyze([str(damaged), "--model", "small_resnet", *TINY, *out])
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(whole), bare)
    with pytest.raises(UserError, match="`model` must say"):
        analyze([str(bare), *TINY, *out])
    with pytest.raises(UserError, match="do not fit") as caught:
        analyze([whole, "--model", "small_resnet", "--depth", "14", *TINY, *out])
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not the folder of one run"):
        analyze([str(tmp_path / "empty"), *TINY, "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match=r"seed_0.*name one"):
        analyze([str(run.parents[1]), *TINY, "--out", str(tmp_path / "out")])


def test_labels_that_are_not_the_networks_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    analyze([*SMALL, "--num-classes", "5", "--measures", "deletion", "--out", str(tmp_path / "out")])
    assert "no accuracy" in capsys.readouterr().out


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        analyze(["--help"])
    assert stop.value.code == 0 and torch.get_num_threads() >= 1
    printed = capsys.readouterr().out
    for option in ("compare", "data", "image-size", "samples", "deletion-samples", "measures", "part", "seed", "out"):
        assert f"--{option}" in printed
