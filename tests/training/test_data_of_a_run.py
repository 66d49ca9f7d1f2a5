"""A run and its data: what it says of them before training, parts that are not there, folders named from elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data.files import encoded, pixels, request, write_image_folder
from residualdroppath.cli.main import run
from residualdroppath.data.images import Split
from residualdroppath.data.load import load_data
from residualdroppath.errors import UserError
from residualdroppath.experiments.compare.config import CompareConfig
from residualdroppath.experiments.compare.run import compare
from residualdroppath.experiments.network_report.config import AnalyzeConfig
from residualdroppath.experiments.network_report.sample import draw_samples
from residualdroppath.experiments.network_report.targets import find_target, load_images
from residualdroppath.experiments.studies.trial import load
from residualdroppath.training.preview import preview
from residualdroppath.training.progress import duration
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.run_folder import RunFolder
from residualdroppath.training.trainer import Trainer

from .tiny_runs import interrupted, tiny

ON_FOLDER = {"train_size": None, "batch_size": 4, "epochs": 2, "validation_fraction": 0.34}
OPTIONS = "--depth 8 --width 2 --batch-size 4 --epochs 2 --validation-fraction 0.34 --device cpu".split()


def test_what_is_found_is_shown_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image_folder(Path("set"))
    Path("set/train/cat/.hidden.png").write_bytes(encoded(pixels(0, 10, 10, 3)))
    assert run(["train", "--data", "set", "--out", "out", "--drop-path-rate", "0.5", *OPTIONS]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[: lines.index(next(line for line in lines if "epoch" in line and "loss" in line))] == [
        f"data: {tmp_path / 'set'}",
        "images: 7 training, 5 validation, 12 test; 10x10 pixels, colour",
        "classes: 2, by training images cat: 3, dog: 4",
        "validation images are cut from those of training (`validation_fraction` 0.34)",
        "images have 10x10 pixels as stored",
        "skipped, hidden: train/cat/.hidden.png",
        "network: small_resnet, 1,348 parameters, random weights",
        "method: residual_drop_path, 3 residual branches, drop rates 0 to 0.5",
        "training: 2 epochs, 2 iterations of 4 images, on cpu",
    ]


def test_time_expected_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny(epochs=3), tmp_path / "shown", on_start=lambda trainer: None)
    printed = capsys.readouterr().err
    assert printed.count("time expected") == printed.count("time expected: 0 s for the 6 iterations to come") == 1
    train(tiny(), tmp_path / "other")
    assert "time expected" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (9000, "2 h 30 min"),
     (180000, "2 days 2 h")],
)  # fmt: skip
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_preview_of_plain_training_that_goes_on(tmp_path: Path) -> None:
    config = tiny(method="plain")
    trainer = Trainer(config, load_config_data(config))
    trainer.iteration = 4
    assert preview(trainer)[-2:] == [
        "method: plain, no branch is dropped",
        "training: 2 epochs, 6 iterations of 32 images, 4 of them done, on cpu",
    ]


def test_without_a_test_part_nothing_is_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image_folder(tmp_path / "set", test="val")
    assert run(["train", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "out"), *OPTIONS]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("validation ") and "test accuracy" not in printed.out
    assert "there is no test part, so accuracy is reported on validation images" in printed.err
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert "validation_accuracy" in result and "test_accuracy" not in result
    assert "test accuracy" not in (tmp_path / "out" / "index.html").read_text()


def test_comparisons_studies_and_analyses_of_test_images_need_them(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "set", test="val")
    data = str(tmp_path / "set")
    with pytest.raises(UserError, match="has no test part to test on"):
        compare(CompareConfig(data=data), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="has no test part to test on"):
        load(TrainConfig(data=data), tmp_path, False)
    with pytest.raises(UserError, match="has no test part to test on"):
        draw_samples(load_data(request(data)), AnalyzeConfig(target="small_resnet", part="test"))


def test_run_goes_on_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image_folder(tmp_path / "set")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    config = tiny(data="set", **ON_FOLDER)
    interrupted(config, Path("out").absolute(), monkeypatch)
    train(config, tmp_path / "whole")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(["train", "--out", "../out", "--resume"]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]
    settings = AnalyzeConfig(target="../out")
    assert len(load_images([find_target("../out", settings)], settings).train) == 7


def cut_image(folder: Path) -> Path:
    """A test image whose header is whole."""
    path = folder / "test/dog/5.png"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def test_a_damaged_test_image_is_found_before_training(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "set", size=32)
    path = cut_image(tmp_path / "set")
    config = tiny(data=str(tmp_path / "set"), **ON_FOLDER)
    with pytest.raises(UserError, match="5.png cannot be decoded"):
        train(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "test_accuracy" not in train(config.model_copy(update={"test": False}), tmp_path / "out")  # it is not used
    path.unlink()


def test_a_damaged_test_image_that_is_found_late_can_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of images that do not fit into memory."""
    monkeypatch.setattr(Split, "decode_early", lambda self: None)
    write_image_folder(tmp_path / "set", size=32)
    config = tiny(data=str(tmp_path / "set"), **ON_FOLDER)
    path = cut_image(tmp_path / "set")
    with pytest.raises(UserError, match="5.png cannot be decoded"):
        train(config, tmp_path / "out")
    weights = load_file(tmp_path / "out/model.safetensors")
    assert not (tmp_path / "out/result.json").exists()
    path.unlink()
    capsys.readouterr()
    said = "the test part is not what it was when the run began, it differs in images"
    result = train(config, tmp_path / "out", resume=True)
    assert "test_accuracy" in result and said in capsys.readouterr().err
    assert said in (tmp_path / "out/log.txt").read_text()
    assert json.loads((tmp_path / "out/data.json").read_text())["images"]["test"] == 11
    kept = load_file(tmp_path / "out/model.safetensors")
    assert kept.keys() == weights.keys() and all(torch.equal(kept[name], weights[name]) for name in kept)
    path.write_bytes(encoded(pixels(3, 32, 32, 3)))
    with pytest.raises(UserError, match="A resumed run keeps its data"):  # once it is tested
        train(config, tmp_path / "out", resume=True)


def test_names_need_not_be_text(tmp_path: Path) -> None:
    """On Linux a name is any bytes."""
    write_image_folder(tmp_path / "set")
    for part in ("train", "test"):
        (tmp_path / "set" / part / "cat").rename(tmp_path / "set" / part / os.fsdecode(b"caf\xe9"))
    path = tmp_path / "set/test/dog/0.png"
    path.rename(path.with_name(os.fsdecode(b"\xe9.png")))
    config = tiny(data=str(tmp_path / "set"), **ON_FOLDER)
    result = train(config, tmp_path / "out")
    assert train(config, tmp_path / "out", resume=True) == result
    assert run(["eval", str(tmp_path / "out"), "--part", "test", "--out", str(tmp_path / "e"), "--device", "cpu"]) == 0


def test_analyses_of_a_run_notice_that_its_data_changed(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "set")
    train(tiny(data=str(tmp_path / "set"), **ON_FOLDER), tmp_path / "out")
    config = AnalyzeConfig(target=str(tmp_path / "out"))
    file = str(tmp_path / "out/model.safetensors")
    (tmp_path / "set/train/cat/0.png").write_bytes(encoded(pixels(9, 10, 10, 3)))
    for target in (config.target, file):
        with pytest.raises(UserError, match="not those that the network was trained on, they differ in content of the"):
            load_images([find_target(target, config)], config)


def test_run_that_was_written_with_a_relative_folder_goes_on_where_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image_folder(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    config = tiny(data="set", **ON_FOLDER)
    out = interrupted(config, tmp_path / "out", monkeypatch)
    values = {**yaml.safe_load((out / "config.yaml").read_text()), "data": "set"}
    (out / "config.yaml").write_text(yaml.safe_dump(values))
    assert train(config, out, resume=True)["epochs"] == 2


def test_comparison_goes_on_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image_folder(tmp_path / "set")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    options = "--methods plain --seeds 0".split()
    assert run(["compare", "--data", "set", "--out", "out", *options, *OPTIONS]) == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(["compare", "--out", "../out", "--resume"]) == 0


def test_folders_are_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("set").mkdir()
    assert TrainConfig(data="set").located().data == str(tmp_path / "set")
    assert TrainConfig(data="mnist", data_dir=Path("d")).located().data_dir == tmp_path / "d"
    for same in (TrainConfig(), TrainConfig(data="no-folder"), TrainConfig(data="set").located()):
        assert same.located() == same
    assert RunFolder(tmp_path).path == tmp_path
