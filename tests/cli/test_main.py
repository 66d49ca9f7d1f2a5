"""Version, help, completion, and how what goes wrong below a command looks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import residualdroppath
from residualdroppath.cli import main
from residualdroppath.cli.main import expand_user, run

TINY = "--depth 8 --width 2 --train-size 64 --batch-size 32 --epochs 1 --device cpu".split()


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Every command does this instead."""

    def use(work: Callable[[], object]) -> None:
        monkeypatch.setattr(main, "command_function", lambda name: lambda arguments: work())

    return use


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"residualdroppath {residualdroppath.__version__} (torch {torch.__version__}")
    assert printed.count("\n") == 1


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for arguments in (["help", "bench"], ["bench", "--help"]):
        with pytest.raises(SystemExit) as stop:
            run(arguments)
        assert stop.value.code == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and "--image-size" in printed[0]


@pytest.mark.parametrize("arguments", [["help"], ["--help"], ["-h"]])
def test_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in main.COMMANDS)
    assert "--version" in printed and "--print-completion" in printed


@pytest.mark.parametrize(
    ("name", "told"), [("trian", "did you mean train?"), ("Study", "did you mean study?"), ("qqq", "no command 'qqq'.")]
)
def test_unknown_commands_have_near_names(capsys: pytest.CaptureFixture[str], name: str, told: str) -> None:
    for arguments in ([name], ["help", name]):
        assert run(arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and told in printed.err.splitlines()[0]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run(["--print-completion", shell])
    script = capsys.readouterr().out
    assert not stop.value.code
    assert all(f"'{name}': {{'description'" in script for name in main.COMMANDS)
    assert "--drop-path-rate" in script and "--floor-rounds" in script


@pytest.mark.parametrize("arguments", [["--print-completion"], ["--print-completion", "dos"]])
def test_completion_of_no_known_shell(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(arguments)
    assert stop.value.code == 2 and "bash" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--out=~/x", "--out=HOME/x"),
        ("~/x", "HOME/x"),
        ("~", "HOME"),
        ("--out=a~b", "--out=a~b"),
        ("--out=x/~/y", "--out=x/~/y"),
        ("--no-such~", "--no-such~"),
        ("a=~/x", "a=~/x"),
    ],
)
def test_the_users_folder(monkeypatch: pytest.MonkeyPatch, given: str, meant: str) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert expand_user(given) == meant.replace("HOME", "/home/somebody")


@pytest.mark.parametrize("words", ["train --out=~nobody.here/x", "train --out ~nobody.here", "runs ~nobody.here/x"])
def test_the_name_of_no_user_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str) -> None:
    assert run(words.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ~nobody.here") and error.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "option", ["data: ~nobody.here/x", "data_dir: ~nobody.here/x\ndata: mnist", "weights: ~nobody.here/x"]
)
def test_the_name_of_no_user_in_a_recipe(capsys: pytest.CaptureFixture[str], option: str) -> None:
    Path("recipe.yaml").write_text(f"{option}\n")
    for command in ("train", "compare"):
        assert run([command, "--config", "recipe.yaml"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ~nobody.here/x begins") and error.count("\n") == 1


def test_no_folder_is_called_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert run(["train", *TINY, "--out=~/x"]) == 0
    assert run(["train", "--config=~/x/config.yaml", "--out=~/y"]) == 0
    assert run(["train", "--resume", "--out=~/y"]) == 0
    assert (tmp_path / "home" / "x").is_dir() and (tmp_path / "home" / "y").is_dir()
    assert not (tmp_path / "~").exists()


OUT_OF_MEMORY = {
    "of the CPU": lambda: torch.empty(2**60),  # more than any machine has: refused at once
    "of a device": lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory.\nmore")),
    "of Python": lambda: (_ for _ in ()).throw(MemoryError()),
}


@pytest.mark.parametrize("where", OUT_OF_MEMORY)
def test_out_of_memory_is_one_line(
    capsys: pytest.CaptureFixture[str], failing: Callable[[Callable[[], object]], None], where: str
) -> None:
    failing(lambda: next(OUT_OF_MEMORY[where]()) if where != "of the CPU" else OUT_OF_MEMORY[where]())
    assert run(["train"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: out of memory (") and "`batch_size`" in error and error.count("\n") == 1


def test_other_errors_are_not_hidden(failing: Callable[[Callable[[], object]], None]) -> None:
    failing(lambda: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        run(["train"])


@pytest.mark.parametrize(
    "event",
    [
        "raise KeyboardInterrupt",
        *(f"os.kill(os.getpid(), signal.{name})" for name in ("SIGINT", "SIGTERM", "SIGUSR1")),
        *(f"caught(signal.{name})" for name in ("SIGINT", "SIGTERM")),
    ],
)
def test_interrupted_while_torch_is_imported(event: str) -> None:
    """Also where a library makes an error of its own of it."""
    code = f"""
import os
import signal
import sys
from importlib.abc import MetaPathFinder
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's background jobs
def caught(number):
    try:
        os.kill(os.getpid(), number)
    except BaseException as error:
        raise RuntimeError("torch cannot be imported") from error
class Interrupting(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            {event}
sys.meta_path.insert(0, Interrupting())
from residualdroppath.cli.main import main
main()
"""
    words = [sys.executable, "-c", code, "train", *TINY]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted: whole epochs are kept; add --resume to go on\n"


@pytest.mark.parametrize(
    "words",
    [
        "train --threads 1000000000",
        "compare --threads 1025",
        "bench small_resnet --threads 1000000000",
        "analyze small_resnet --threads 1000000000",
        "train --threads 0",
    ],
)
def test_absurd_numbers_of_threads(capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert run(words.split()) == 1
    error = capsys.readouterr().err
    assert "`threads`: Input should be" in error and error.count("\n") == 1


@pytest.mark.parametrize("words", ["spiral --workers", "study study.yaml --threads", "study study.yaml --workers"])
def test_absurd_numbers_of_a_command_itself(capsys: pytest.CaptureFixture[str], words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run([*words.split(), "1000000000"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "less than or equal to 1024" in " ".join(error.split()) and "Traceback" not in error
