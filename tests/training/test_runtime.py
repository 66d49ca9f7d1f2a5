"""Seeds for each purpose, devices by name, and the clock."""

from __future__ import annotations

import logging
import time

import pytest
import torch
from torch import nn

from residualdroppath.errors import UserError
from residualdroppath.models.small_resnet import SmallResNet
from residualdroppath.training import runtime
from residualdroppath.training.runtime import Stopwatch, derived_seed, memory_format, pick_device


def test_seeds_of_purposes_are_fixed_and_apart() -> None:
    assert derived_seed(0, "model") == 874792090  # runs are repeated by it
    seeds = {derived_seed(seed, purpose) for seed in range(50) for purpose in ("model", "epoch 1", "epoch 2")}
    assert len(seeds) == 150 and all(0 <= seed < 2**32 for seed in seeds)


def test_devices_by_name() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:99", ""])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(UserError, match="`device`") as error:
        pick_device(name)
    assert "\n" not in str(error.value)


def test_stopwatch_times_the_work() -> None:
    done: list[int] = []
    seconds = Stopwatch(torch.device("cpu"))(lambda: (time.sleep(0.02), done.append(1)))
    assert 0.02 <= seconds < 5 and done == [1]


CPU = torch.device("cpu")


@pytest.mark.parametrize("width", [8, 16])
def test_channels_last_where_there_are_enough_channels(width: int, caplog: pytest.LogCaptureFixture) -> None:
    """One or three channels of images are no harm: recipes of width 8 are trained so."""
    for channels in (1, 3):
        model = SmallResNet(8, width, in_channels=channels)
        assert memory_format(model, CPU, channels_last=True) == torch.channels_last
        assert memory_format(model, CPU, channels_last=False) == torch.contiguous_format
    assert caplog.records == []


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (SmallResNet(8, 7), "stem.0 has 7"),
        (SmallResNet(8, 1), "stem.0 has 1"),
        (nn.Sequential(nn.Conv2d(16, 4, 1)), "0 has 4"),
        (nn.Sequential(nn.Conv2d(4, 16, 1)), "0 has 4"),
        (nn.Sequential(nn.ConvTranspose2d(16, 4, 3)), "0 has 4"),
    ],
)
def test_too_few_channels_on_a_cpu_are_trained_in_the_usual_format(
    model: nn.Module, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    runtime._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert memory_format(model, CPU, channels_last=True) == torch.contiguous_format
    assert [record.getMessage() for record in caplog.records] == [
        f"`channels_last` is left out: on a CPU it needs 8 channels in each convolution; {named}"
    ]
    assert memory_format(model, torch.device("cuda"), channels_last=True) == torch.channels_last
