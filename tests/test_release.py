"""The wheel: what is in it, and that it works with torch alone. With each extra: `make release-check`."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from release.check import PACKAGE, TWO_LINES, build_wheel, wrong_contents
from residualdroppath.records.extras import as_requirement


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def torch_and_what_it_needs() -> set[str]:
    """Names of distributions; what others bring along is not among them."""
    needed, new = set[str](), {"torch"}
    while new:
        needed |= new
        lines = [line for name in new for line in importlib.metadata.requires(name) or [] if "extra ==" not in line]
        new = {name for line in lines if _is_installed(name := as_requirement(line).name)} - needed
    return needed


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # of another platform
        return False
    return True


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files, and links to those of torch and of what torch needs."""
    folder = tmp_path_factory.mktemp("alone")
    zipfile.ZipFile(wheel).extractall(folder)
    for name in torch_and_what_it_needs():
        files = importlib.metadata.files(name) or []
        tops = {file.parts[0]: Path(str(file.locate())) for file in files if file.parts[0] not in ("..", "__pycache__")}
        for top, path in tops.items():
            parents = [path, *path.parents]
            (folder / top).symlink_to(next(parent for parent in parents if parent.name == top).resolve())
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-S", "-W", "ignore", *words]  # without the packages of this environment
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.full
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert list(wrong_contents(wheel)) == []
    names = zipfile.ZipFile(wheel).namelist()
    assert f"{PACKAGE}/py.typed" in names and any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.full
def test_a_file_that_is_missing_or_too_many_is_found(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / wheel.name, "w") as other:
        for name in zipfile.ZipFile(wheel).namelist():
            if not name.endswith("py.typed"):
                other.writestr(name, "")
        other.writestr("tests/test_x.py", "")
    assert list(wrong_contents(tmp_path / wheel.name)) == [
        f"{PACKAGE}/py.typed is not in the wheel", "tests/test_x.py is in the wheel",
    ]  # fmt: skip


@pytest.mark.full
def test_the_two_lines_run_with_torch_alone(alone: Path) -> None:
    assert run(alone, "-c", "import numpy").returncode  # else it is not alone
    done = run(alone, "-c", TWO_LINES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "4"


@pytest.mark.full
def test_the_command_line_with_torch_alone(alone: Path) -> None:
    done = run(alone, "-m", PACKAGE, "doctor")
    assert done.returncode == 0 and "tyro is missing" in done.stdout and "[train]'" in done.stdout
    for words in (["train"], ["branches", "resnet18"], ["--print-completion", "bash"]):
        done = run(alone, "-m", PACKAGE, *words)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.endswith("pip install 'residualdroppath[train]'.\n")
    done = run(alone, "-c", "from residualdroppath.analysis import probe")
    assert done.stderr.splitlines()[-1].endswith("pip install 'residualdroppath[train]'")
