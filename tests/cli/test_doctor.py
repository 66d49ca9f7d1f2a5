"""`rdp doctor`, and what commands print where a package is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import residualdroppath
from residualdroppath.cli import doctor as module
from residualdroppath.cli.doctor import diagnosis, lines
from residualdroppath.cli.main import run
from residualdroppath.records.extras import Requirement

TORCH = Requirement("torch", ">=2.6")
NEEDED = [TORCH, Requirement("tyro", ">=0.1", "train"), Requirement("no-such-package", ">=1", "ray")]
NEEDED += [Requirement("pytest", ">=999", "wandb"), Requirement("ruff", "", "dev")]


def test_versions_devices_and_threads() -> None:
    found = diagnosis(NEEDED)
    assert found["residualdroppath"]["version"] == residualdroppath.__version__
    assert found["torch"] == {"version": torch.__version__, "range": ">=2.6", "problem": None, "broken": False}
    assert found["devices"][0].startswith("cpu (") and found["threads"] == torch.get_num_threads()


def test_what_is_missing_comes_with_the_line_that_gets_it() -> None:
    found = diagnosis(NEEDED)
    assert list(found["extras"]) == ["train", "ray", "wandb"]  # extras for development are of no use to users
    assert found["extras"]["train"]["problems"] == []
    printed = "\n".join(lines(found))
    assert "  train  complete" in printed
    assert "  ray    no-such-package is missing: pip install 'residualdroppath[ray]'" in printed
    assert f"  wandb  pytest {pytest.__version__} is not >=999: pip install 'residualdroppath[wandb]'" in printed


def test_a_source_that_is_not_installed() -> None:
    assert "extras            unknown" in "\n".join(lines(diagnosis([])))


def test_a_torch_outside_the_tested_range() -> None:
    found = diagnosis([Requirement("torch", "<2")])
    assert f"torch {torch.__version__} is not <2, which are the versions tested" in "\n".join(lines(found))
    assert not found["torch"]["broken"]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    assert f"torch             {torch.__version__}" in capsys.readouterr().out
    assert run(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["torch"]["version"] == torch.__version__
    with pytest.raises(SystemExit) as stop:
        run(["doctor", "--jsn"])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("absent", "told"),
    [("torch", "torch cannot be imported"), ("residualdroppath.core.torch_internals", "lacks what the method uses")],
)
def test_where_the_method_cannot_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, absent: str, told: str
) -> None:
    real = module.importlib.import_module

    def import_module(name: str, package: str | None = None) -> object:
        if absent.endswith(name.removeprefix("..")):
            raise ImportError("cannot import name '_BatchNorm'")
        return real(name, package)

    monkeypatch.setattr(module.importlib, "import_module", import_module)
    with monkeypatch.context() as patch:
        patch.setattr(module, "requirements", lambda: NEEDED)
        with pytest.raises(module.Stopped, match=told) as stopped:
            module.doctor([])
    assert stopped.value.exit_code == 1
    printed = capsys.readouterr().out
    assert told in printed and "cannot import name '_BatchNorm'" in printed and "extras" in printed


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path, target=None):
        if name in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import importlib.metadata
importlib.metadata.requires = lambda name: ["torch>=2.6", 'tyro>=0.9; extra == "train"', 'numpy; extra == "train"']
"""


def without(names: str, code: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", WITHOUT + code, names]
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


COMMAND = "from residualdroppath.cli.main import run; sys.exit(run(['{}']))"


@pytest.mark.parametrize("command", ["train", "branches", "--print-completion"])
def test_a_command_names_the_extra_that_is_missing(command: str) -> None:
    done = without("tyro,pydantic,yaml,rich", COMMAND.format(command))
    named = command if command.startswith("--") else f"rdp {command}"
    assert done.stderr == (
        f"error: `{named}` needs tyro, which is not installed: pip install 'residualdroppath[train]'.\n"
    )
    assert done.returncode == 1


def test_other_missing_modules_are_not_hidden() -> None:
    done = without("residualdroppath.training.recipe", COMMAND.format("train"))
    assert "Traceback" in done.stderr and "No module named 'residualdroppath.training.recipe'" in done.stderr


def test_the_doctor_needs_no_extra() -> None:
    done = without("tyro,pydantic,yaml,rich,numpy", COMMAND.format("doctor"))
    assert done.returncode == 0, done.stderr
    assert "extras" in done.stdout


def test_an_analysis_names_the_extra_that_is_missing() -> None:
    done = without("numpy", "from residualdroppath.analysis import reuse")
    line = "`residualdroppath.analysis.reuse` needs numpy: pip install 'residualdroppath[train]'"
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {line}"
