"""A resumed run ends with the very bits of an uninterrupted one."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from residualdroppath.models.classifier import Classifier
from residualdroppath.models.small_resnet import SmallResNet
from residualdroppath.training import making, run
from residualdroppath.training.run import train

from .tiny_runs import contents, final_state, interrupted, metrics, tiny

RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain"},
    "drop path": {"method": "drop_path", "drop_path_rate": 0.5},
    "mid-cycle": {"drop_path_rate": 0.5},
    "long cycle": {"drop_path_rate": 0.5, "schedule": (1, 4), "epochs": 3},
    "random": {"drop_path_rate": 0.5, "schedule": "random"},
    "stop_gradient": {"drop_path_rate": 0.5, "freeze": "stop_gradient", "frozen_norm": "batch"},
    "sample": {"drop_path_rate": 0.5, "freeze": "stop_gradient", "granularity": "sample"},
    "rate over time": {"drop_path_rate": 0.5, "rate_over_time": "late"},
    "adamw": {"drop_path_rate": 0.5, "optimizer": "adamw", "lr": 0.01},
    "bf16": {"drop_path_rate": 0.5, "amp": "bf16", "channels_last": True, "width": 8},
    "fp16": {"drop_path_rate": 0.5, "amp": "fp16"},
    "dropout": {"drop_path_rate": 0.5},
}

QUICK = ("plain", "mid-cycle", "random", "sample", "adamw", "fp16", "dropout")  # those of the default tier


@pytest.fixture(autouse=True)
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "write_run_page", lambda *args: None)  # most of the time of a tiny run


def with_dropout(*args: Any, in_channels: int, num_classes: int, **kwargs: Any) -> Classifier:
    model = SmallResNet(8, 2, in_channels=in_channels, num_classes=num_classes)
    model.blocks[1].conv2 = nn.Sequential(nn.Dropout(0.3), model.blocks[1].conv2)  # pyright: ignore
    model.head = nn.Sequential(nn.Dropout(0.5), model.head)  # pyright: ignore
    return Classifier(model, in_channels)


def equal(ours: Any, theirs: Any) -> bool:
    """Bit for bit, through lists and dicts."""
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(equal(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    return ours == theirs


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in RECIPES]
)
def test_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    if recipe == "dropout":
        monkeypatch.setattr(making, "make_classifier", with_dropout)
    config = tiny(**RECIPES[recipe])
    whole = train(config, tmp_path / "whole")
    interrupted(config, tmp_path / "cut", monkeypatch)
    assert final_state(tmp_path / "cut")[1]["iteration"] == 3
    cut = train(config, tmp_path / "cut", resume=True)

    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "cut/model.safetensors").read_bytes()
    assert equal(final_state(tmp_path / "whole"), final_state(tmp_path / "cut"))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")
    assert {**whole, "train_seconds": 0} == {**cut, "train_seconds": 0}


@pytest.mark.parametrize("other", [{"seed": 1}, {"drop_path_rate": 0.6}, {"method": "plain"}])
def test_another_recipe_ends_elsewhere(tmp_path: Path, other: dict[str, Any]) -> None:
    train(tiny(drop_path_rate=0.5), tmp_path / "one")
    train(tiny(**{"drop_path_rate": 0.5, **other}), tmp_path / "other")
    assert (tmp_path / "one/model.safetensors").read_bytes() != (tmp_path / "other/model.safetensors").read_bytes()


def test_resuming_a_run_that_has_ended_changes_nothing(tmp_path: Path) -> None:
    result = train(tiny(), tmp_path / "run")
    before = contents(tmp_path / "run")
    assert train(tiny(), tmp_path / "run", resume=True) == result
    assert contents(tmp_path / "run") == before


def test_interrupted_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop when the first, second, ... file is to take its place, until the run gets through; resume each time."""
    train(tiny(), tmp_path / "whole")
    replace = os.replace
    for stop_at in itertools.count(1):
        out, calls = tmp_path / f"stop_{stop_at}", 0

        def stop(*paths: Path, stop_at: int = stop_at) -> None:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise KeyboardInterrupt
            replace(*paths)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stop)
            try:
                train(tiny(), out)
                # Recipe, data, environment; of two epochs table, metrics, weights, state, digests; weights, result.
                assert calls == stop_at - 1 == 3 + 2 * 5 + 2
                return
            except KeyboardInterrupt:
                pass
        if (out / "config.yaml").exists():
            train(tiny(), out, resume=True)
            assert metrics(out) == metrics(tmp_path / "whole")
            assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
