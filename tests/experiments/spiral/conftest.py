"""A spiral run that takes seconds, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath.experiments.spiral.config import SpiralConfig
from residualdroppath.experiments.spiral.run import run_spiral

torch.set_num_threads(1)
TINY: dict[str, Any] = {
    "depth": 4, "width": 8, "samples": 64, "batch_size": 32, "iterations": 12, "grid": 12, "frames": 3, "seeds": 2,
    "turns": 0.5, "drop_path_rate": 0.5,
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny() -> SpiralConfig:
    return SpiralConfig(**TINY)


@pytest.fixture(scope="session")
def tiny_run(tiny: SpiralConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The record and the folder of a finished run."""
    out = tmp_path_factory.mktemp("spiral") / "run"
    return run_spiral(tiny, out, workers=1), out
