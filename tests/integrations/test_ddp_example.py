"""`examples/ddp.py`: resumed it ends as uninterrupted, and two processes agree with one."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("sklearn", reason="needs scikit-learn")

SCRIPT = Path(__file__).parents[2] / "examples" / "ddp.py"


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return torch.load(str(words[-1]), weights_only=True)


def test_resumed_ends_as_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = run(monkeypatch, "--epochs", 2, "--save", "whole.pt")
    run(monkeypatch, "--epochs", 1, "--save", "half.pt")
    resumed = run(monkeypatch, "--epochs", 1, "--resume", "half.pt", "--save", "resumed.pt")
    assert resumed["rdp"] == whole["rdp"] and whole["rdp"]["iteration"] == 40
    assert all(torch.equal(value, resumed["model"][name]) for name, value in whole["model"].items())


@pytest.mark.full
def test_two_processes_agree_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = f"-m torch.distributed.run --standalone --nproc-per-node 2 {SCRIPT} --epochs 1 --save two.pt"
    paths = os.pathsep.join([str(SCRIPT.parents[1] / "src"), *sys.path])
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "2 process(es), 20 updates" in done.stdout
    one, two = run(monkeypatch, "--epochs", 1, "--save", "one.pt"), torch.load("two.pt", weights_only=True)
    assert two["rdp"] == one["rdp"]
    for name, value in one["model"].items():  # the same images an update: sums of gradients in another order
        torch.testing.assert_close(two["model"][name], value, rtol=0, atol=1e-3)
