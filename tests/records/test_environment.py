"""What a record holds of where it was made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import residualdroppath
from residualdroppath.records.environment import environment, peak_memory


def test_enough_to_repeat_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/rdp", "train", "--seed", "3"])
    found = environment(torch.device("cpu"))
    assert found["command"] == "rdp train --seed 3" and found["device"].startswith("cpu")
    assert found["versions"]["torch"] == torch.__version__ and found["threads"] == torch.get_num_threads()


def test_commit_is_that_of_the_package() -> None:
    folder = Path(residualdroppath.__file__).parent
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("the package is not in a checkout")
    assert (environment(torch.device("cpu"))["commit"] or "").removesuffix("+") == done.stdout.strip()


def test_peak_memory_is_in_bytes() -> None:
    assert 50 * 2**20 < peak_memory() < 2**42
