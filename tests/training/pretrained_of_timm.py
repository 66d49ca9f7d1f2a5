"""A small network of timm with weights that its hub would have, without a network to fetch them."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models import _builder
from torch import Tensor

NAME = "test_resnet.r160_in1k"  # 160x160 pixels, mean and deviation 0.5, 1,000 classes


def pretend_hub(monkeypatch: pytest.MonkeyPatch, seed: int = 5) -> dict[str, Tensor]:
    """What timm's own loading code comes to when it asks the hub; returns the tensors."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = timm.create_model(NAME).state_dict()

    def fetched(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
        assert kwargs.get("weights_only", True)
        return {name: value.clone() for name, value in state.items()}

    monkeypatch.setattr(_builder, "load_state_dict_from_hf", fetched)
    return state
