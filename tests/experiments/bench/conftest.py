"""Settings of a bench that takes a second. No test says how fast anything is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from residualdroppath.experiments.bench.config import BenchConfig

torch.set_num_threads(1)


@pytest.fixture
def tiny() -> Any:
    """Makes a configuration of an 8-layer ResNet on 8x8 images."""

    def make(**options: Any) -> BenchConfig:
        defaults: dict[str, Any] = {
            "model": "small_resnet",
            "depth": 8,
            "width": 8,  # fewer channels, last in memory: a 1x1 convolution's gradient overruns on AVX2 (torch 2.13)
            "image_size": 8,
            "batch_size": 4,
            "rate": 0.5,
            "plans": 4,
            "warmup": 1,
            "floor_rounds": 2,
            "device": "cpu",
        }
        return BenchConfig(**{**defaults, **options})

    return make
