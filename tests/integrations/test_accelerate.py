"""The loop of `examples/accelerate_loop.py`: accumulation, resuming, two processes. The example itself is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("accelerate")

from accelerate import Accelerator

from residualdroppath import ResidualDropPath

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "accelerate_loop.py"


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x)


def train(
    folder: Path, *, updates: int, resume: bool = False, accumulate: int = 2, guarded: bool = True
) -> tuple[nn.Module, list[str]]:
    """Weights, and the kind of each update, of a loop as the page of accelerate has it."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model: Any = nn.Sequential(*(Block() for _ in range(4)))
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=0.1)
    loader: Any = DataLoader(TensorDataset(torch.randn(24, 4)), batch_size=2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    accelerator.register_for_checkpointing(rdp)
    if resume:
        accelerator.load_state(str(folder))
    batches = list(loader)[rdp.iteration * accumulate : updates * accumulate]
    kinds = []
    for (batch,) in batches:
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).square().sum())
            optimizer.step()
            optimizer.zero_grad()
            if accelerator.sync_gradients or not guarded:
                kinds.append(rdp.kind)
                rdp.step()
    accelerator.save_state(str(folder))
    return accelerator.unwrap_model(model), kinds


def test_a_loop_with_accumulation_resumes_with_the_same_bits(tmp_path: Path) -> None:
    whole, kinds = train(tmp_path / "whole", updates=6)
    assert kinds == ["drop_path", "dropped_part"] * 3
    train(tmp_path / "half", updates=3)
    resumed, rest = train(tmp_path / "half", updates=6, resume=True)
    assert rest == kinds[3:]
    for first, second in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_step_for_each_micro_batch_is_warned_about(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"`rdp\.step\(\)`"):
        train(tmp_path, updates=6, guarded=False)


def run_example(*arguments: str, processes: int = 1) -> str:
    """Standard output of the example."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*command, str(EXAMPLE), *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.full
def test_the_example_on_two_processes_and_resumed(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    options = ("--out", str(tmp_path))
    assert "11 iterations" in run_example("--epochs", "1", *options, processes=2)
    assert "22 iterations" in run_example("--epochs", "2", "--resume", *options, processes=2)
    assert run_example("--epochs", "1", *options).startswith("22 iterations")
