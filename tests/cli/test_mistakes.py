"""Every mistake is one line on stderr that starts with "error:"; nothing is made and nothing overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from residualdroppath.cli import main
from residualdroppath.cli.main import run

TINY = "--depth 8 --width 2 --train-size 64 --batch-size 32 --epochs 1 --device cpu".split()


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command answers with."""
    before = everything(Path.cwd())
    assert run(list(arguments)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.endswith("\n") and printed.err.count("\n") == 1
    assert everything(Path.cwd()) == before
    return printed.err


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--drop-path-rate 1.0", "`drop_path_rate`"),
        ("--drop-path-rate -0.1", "`drop_path_rate`"),
        ("--drop-path-rate nan", "`drop_path_rate`"),
        ("--schedule 0 1", "`schedule`"),
        ("--epochs 0", "`epochs`"),
        ("--split-seed -1", "`split_seed`"),
        ("--granularity sample", "`granularity='sample'` goes with"),
        ("--depth 9", "6n + 2"),
        ("--width 0", "`width`"),
        ("--data dgits", "'dgits', which is not a folder here"),
        ("--data mnist --data-dir nowhere", "is missing"),
        ("--data cifar10 --data-dir nowhere", "is missing"),
        ("--train-size 3", "`train_size` must be in [10, 1293]"),
        ("--batch-size 65", "`batch_size` must be at most the 64 training images"),
        ("--warmup-iterations 99", "`warmup_iterations` must be less than the "),
        ("--device tpu", "`device` must be auto, cpu or cuda"),
        ("--device cuda:99", "is not there"),
        ("--config nothing.yaml", "nothing.yaml cannot be read"),
        ("--resume", "to resume"),
        ("--resume --out nothing", "to resume"),
    ],
)
def test_mistake_in_an_option(capsys: pytest.CaptureFixture[str], command: str, options: str, told: str) -> None:
    assert told in mistake(capsys, command, *TINY, *options.split())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--model resnet999", "did you mean resnet"),
        ("--model mobilenetv1_100 --image-size 32", "No residual branch was found in EfficientNet"),
        ("--model densenet121", "does not take 8x8 images"),
        ("--model torchvision/resnet999", "after torchvision/, got 'resnet999'; did you mean"),
        ("--model torchvision/r3d_18", "does not take 8x8 images"),
        ("--model keras/resnet50", "must be NAME or timm/NAME, torchvision/NAME or transformers/CLASS"),
    ],
)
def test_mistake_in_the_model(capsys: pytest.CaptureFixture[str], options: str, told: str) -> None:
    assert told in mistake(capsys, "train", *TINY, *options.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "0 CUDA devices found" in mistake(capsys, "train", *TINY, "--device", "cuda")


@pytest.mark.parametrize(
    ("options", "told"),
    [("--seeds 0 0", "`seeds`"), ("--seeds -1 0", "`seeds`"), ("--methods plain plain", "`methods`")],
)
def test_mistake_in_what_to_compare(capsys: pytest.CaptureFixture[str], options: str, told: str) -> None:
    assert told in mistake(capsys, "compare", *TINY, *options.split())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("epochs: 0\n", "`epochs`"),
        ("epoch: 3\n", "`epoch` is not an option"),
        ("epochs: [\n", "cannot be read"),
        ("", "option: value"),
        ("methods: [plain]\n", "`methods` is not an option"),
    ],
)
def test_mistake_in_a_recipe(capsys: pytest.CaptureFixture[str], text: str, told: str) -> None:
    Path("recipe.yaml").write_text(text)
    line = mistake(capsys, "train", *TINY, "--config", "recipe.yaml")
    assert told in line and "recipe.yaml" in line


@pytest.mark.parametrize("command", ["train", "compare"])
def test_folder_in_use(capsys: pytest.CaptureFixture[str], command: str) -> None:
    Path("used").mkdir()
    Path("used/thesis.txt").write_text("years of work")
    assert "used is in use" in mistake(capsys, command, *TINY, "--out", "used")
    assert "used/thesis.txt is in use" in mistake(capsys, command, *TINY, "--out", "used/thesis.txt")


def test_run_in_the_default_folder_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", *TINY]) == 0
    capsys.readouterr()
    assert "runs/digits-small_resnet-residual_drop_path-seed0 is in use" in mistake(capsys, "train", *TINY)


@pytest.mark.parametrize(
    "arguments", ["", "trian", "--out x", "train --no-such-option 1", "train --epochs many", "train stray"]
)
def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str], arguments: str) -> None:
    try:
        code: object = run(arguments.split())
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2 and printed.out == "" and printed.err and "Traceback" not in printed.err
    assert everything(Path.cwd()) == {}


@pytest.mark.parametrize("schedule", ["2", "often", "1 2 3"])
def test_schedule_of_another_shape_is_wrong_usage(capsys: pytest.CaptureFixture[str], schedule: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run(["train", *TINY, "--schedule", *schedule.split()])
    assert stop.value.code == 2 and "Traceback" not in capsys.readouterr().err


def test_as_a_process() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from residualdroppath.cli.main import main; main()", "train", "--epochs", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: `epochs`") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "compare", "spiral", "bench", "analyze", "branches"])
def test_resume_is_offered_where_there_is_such_an_option(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run([command, "--help"])
    can_resume = "--resume" in capsys.readouterr().out

    def interrupt(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "command_function", lambda name: interrupt)
    assert run([command]) == 130
    error = capsys.readouterr().err
    assert error.startswith("interrupted") and ("--resume" in error) == can_resume
