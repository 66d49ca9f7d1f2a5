"""Settings for the tests of the core."""

from collections.abc import Iterator

import pytest
import torch

from residualdroppath.core.running import fold_scale

from .discover_once import tiny_models_discovered_once

torch.set_num_threads(1)  # tensors of a few rows: more threads only wait for each other


@pytest.fixture(autouse=True, scope="session")
def discover_once() -> Iterator[None]:
    with tiny_models_discovered_once():
        yield


@pytest.fixture(autouse=True)
def factors_go_into_parameters_of_tiny_networks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_scale, "MIN_ELEMENTS_TO_FOLD", -(2**14))


@pytest.fixture
def factors_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """For comparisons to the bit with ways of running that leave the parameters as they are."""
    monkeypatch.setattr(fold_scale, "MIN_ELEMENTS_TO_FOLD", 2**62)
