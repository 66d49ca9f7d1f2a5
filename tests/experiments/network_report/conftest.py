"""Two tiny trained runs, and their analysis, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath.experiments.network_report.config import AnalyzeConfig
from residualdroppath.experiments.network_report.run import Analysis, analyze
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import train

torch.set_num_threads(1)
TINY: dict[str, Any] = {"samples": 64, "probe_samples": 96, "deletion_samples": 32, "sets": 2, "device": "cpu"}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished runs by method; stages of two blocks, so that some can be reordered."""
    place = tmp_path_factory.mktemp("runs")
    for method in ("plain", "residual_drop_path"):
        recipe: dict[str, Any] = {"depth": 14, "width": 4, "train_size": 128, "batch_size": 32, "epochs": 1}
        train(TrainConfig(**recipe, method=method, device="cpu"), place / method)  # pyright: ignore[reportArgumentType]
    return {method: place / method for method in ("plain", "residual_drop_path")}


@pytest.fixture(scope="session")
def pair(runs: dict[str, Path]) -> Analysis:
    return analyze(AnalyzeConfig(target=str(runs["plain"]), compare=str(runs["residual_drop_path"]), **TINY))


@pytest.fixture(scope="session")
def single() -> Analysis:
    """Random weights, and only some measures."""
    measures = ("deletion", "streams", "relations")
    return analyze(AnalyzeConfig(target="small_resnet", depth=8, width=4, measures=measures, **TINY))
