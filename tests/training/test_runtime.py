"""Seeds for each purpose, devices by name, and the clock."""

from __future__ import annotations

import time

import pytest
import torch

from residualdroppath.errors import UserError
from residualdroppath.training.runtime import Stopwatch, derived_seed, pick_device


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
