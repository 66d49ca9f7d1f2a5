"""Options of the command line over those of a file over defaults, and runs that are repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residualdroppath.cli.main import run
from residualdroppath.cli.recipe_groups import HEADINGS
from residualdroppath.experiments.compare.config import CompareConfig
from residualdroppath.training import run as training
from residualdroppath.training.recipe import TrainConfig, read_config

TINY = "--depth 8 --width 2 --train-size 64 --batch-size 32 --epochs 1 --device cpu".split()


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The recipes and folders that commands come to, in place of what they would run."""
    calls: list[Any] = []

    def note(recipe: TrainConfig, out: Path, *, resume: bool, **others: Any) -> dict[str, Any]:
        calls.append((recipe, out, resume))
        return {"test_accuracy": 0.5, "validation_accuracy": 0.5}

    monkeypatch.setattr(training, "train", note)
    return calls


def recipe_of(asked: list[Any], *options: str) -> TrainConfig:
    assert run(["train", *options]) == 0
    return asked[-1][0]


@pytest.mark.parametrize("arguments", ["--help", "-h", "train --help", "train -h", "compare --help"])
def test_help(capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    try:
        code: object = run(arguments.split())
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert code == 0 and printed.err == "" and "rdp" in printed.out


@pytest.mark.parametrize(("command", "recipe"), [("train", TrainConfig), ("compare", CompareConfig)])
def test_help_names_every_option(capsys: pytest.CaptureFixture[str], command: str, recipe: type[TrainConfig]) -> None:
    with pytest.raises(SystemExit):
        run([command, "--help"])
    printed = capsys.readouterr().out
    for name in [*recipe.model_fields, "out", "resume", "config"]:
        assert f"--{name.replace('_', '-')} " in printed or f"--{name.replace('_', '-')}," in printed


def test_defaults(asked: list[Any]) -> None:
    assert recipe_of(asked) == TrainConfig()
    assert asked[-1][1:] == (Path("runs/digits-small_resnet-residual_drop_path-seed0"), False)


def test_default_folder_of_a_name_with_a_slash(asked: list[Any]) -> None:
    recipe_of(asked, "--model", "torchvision/resnet18", "--method", "plain")
    assert asked[-1][1] == Path("runs/digits-torchvision-resnet18-plain-seed0")


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        ("--schedule 2 1", "schedule", (2, 1)),
        ("--schedule random", "schedule", "random"),
        ("--no-scale-by-keep", "scale_by_keep", False),
        ("--train-trunk", "train_trunk", True),
        ("--channels-last", "channels_last", True),
        ("--download", "download", True),
        ("--mirror True", "mirror", True),
        ("--mirror False", "mirror", False),
        ("--mirror None", "mirror", None),
        ("--train-size 50", "train_size", 50),
        ("--data-dir somewhere/else", "data_dir", Path("somewhere/else")),
        ("--drop-path-rate=0", "drop_path_rate", 0.0),
        ("--drop_path_rate 0.2", "drop_path_rate", 0.2),
    ],
)
def test_one_option(asked: list[Any], words: str, option: str, value: Any) -> None:
    recipe = recipe_of(asked, *words.split())
    assert getattr(recipe, option) == value and type(getattr(recipe, option)) is type(value)
    assert recipe == TrainConfig(**{option: value})


@pytest.mark.parametrize("words", [["--config", "recipe.yaml"], ["--config=recipe.yaml"]])
def test_command_line_over_file_over_defaults(asked: list[Any], words: list[str]) -> None:
    Path("recipe.yaml").write_text("epochs: 7\nschedule: [3, 2]\nscale_by_keep: false\nmirror: true\nlr: 0.5\n")
    values = {"epochs": 7, "schedule": (3, 2), "scale_by_keep": False, "mirror": True, "lr": 0.5}
    from_file = TrainConfig.model_validate(values)
    assert recipe_of(asked, *words) == from_file
    over = recipe_of(asked, "--lr", "0.25", *words, "--schedule", "random", "--scale-by-keep", "--mirror", "None")
    assert over == TrainConfig.model_validate({"epochs": 7, "lr": 0.25, "schedule": "random"})


def test_resume_takes_the_recipe_of_the_run(asked: list[Any]) -> None:
    Path("run").mkdir()
    Path("run/config.yaml").write_text(TrainConfig(epochs=3, seed=8).to_yaml())
    assert run(["train", "--resume", "--out", "run"]) == 0
    assert asked[-1] == (TrainConfig(epochs=3, seed=8), Path("run"), True)
    assert run(["train", "--out=run", "--resume", "--seed", "9"]) == 0
    assert asked[-1][0] == TrainConfig(epochs=3, seed=9)
    assert run(["train", "--out", "another"]) == 0
    assert asked[-1] == (TrainConfig(), Path("another"), False)


def test_config_of_a_run_repeats_it_bit_for_bit(capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--schedule",
        "2",
        "1",
        "--seed",
        "3",
        "--drop-path-rate",
        "0.5",
        "--optimizer",
        "adamw",
        "--epochs",
        "2",
    ]
    assert run(["train", *TINY, *options, "--out", "one"]) == 0
    assert run(["train", "--config", "one/config.yaml", "--out", "two"]) == 0
    assert Path("one/config.yaml").read_text() == Path("two/config.yaml").read_text()
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()
    results = [json.loads(Path(name, "result.json").read_text()) for name in ("one", "two")]
    assert {**results[0], "train_seconds": 0} == {**results[1], "train_seconds": 0}

    assert run(["train", "--config", "one/config.yaml", "--seed", "4", "--out", "three"]) == 0
    assert Path("one/model.safetensors").read_bytes() != Path("three/model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["mnist.yaml", "fashion_mnist_overfit.yaml"])
def test_recipes_of_the_checkout_are_valid(name: str) -> None:
    path = Path(__file__).parents[2] / "recipes" / name
    assert read_config(CompareConfig, path).methods


def test_brackets_in_the_folders_name(capsys: pytest.CaptureFixture[str]) -> None:
    out = "run [1] [/b] [red]"
    assert run(["train", *TINY, "--out", out]) == 0
    assert f"page: {out}/index.html" in capsys.readouterr().out
    assert (Path(out) / "index.html").is_file()


def test_interrupted_is_130_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", stop)
    assert run(["train"]) == 130
    assert capsys.readouterr().err == "interrupted: whole epochs are kept; add --resume to go on\n"


def test_full_disk_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "train", full)
    assert run(["train"]) == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("recipe", [TrainConfig, CompareConfig])
def test_each_option_is_under_one_heading(recipe: type[TrainConfig]) -> None:
    under_headings = [name for names in HEADINGS.values() for name in names]
    assert len(set(under_headings)) == len(under_headings)
    assert recipe.model_fields.keys() <= set(under_headings)
    assert set(under_headings) <= TrainConfig.model_fields.keys() | CompareConfig.model_fields.keys()


def test_headings_are_in_the_help_alone(capsys: pytest.CaptureFixture[str], asked: list[Any]) -> None:
    with pytest.raises(SystemExit):
        run(["train", "--help"])
    printed = capsys.readouterr().out
    assert printed.index(" augmentation options ") < printed.index("--mixup FLOAT") < printed.index("--ema ")
    assert recipe_of(asked, "--mixup", "0.5", "--freeze-modules", "stem").mixup == 0.5
    assert run(["train", "--use", "ema"]) == 1  # options under several headings are checked together
    assert capsys.readouterr().err.startswith("error: `use: ema` needs an average")
