"""Settings for the tests of the core."""

from collections.abc import Iterator

import pytest
import torch

from residualdroppath.core import last_layer

from .discover_once import tiny_models_discovered_once

torch.set_num_threads(1)  # tensors of a few rows: more threads only wait for each other


@pytest.fixture(autouse=True, scope="session")
def discover_once() -> Iterator[None]:
    with tiny_models_discovered_once():
        yield


@pytest.fixture(autouse=True)
def factors_go_into_parameters_of_tiny_networks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_layer, "WORTH_IT", -(2**14))


@pytest.fixture
def factors_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """For comparisons to the bit with ways of running that leave the parameters as they are."""
    monkeypatch.setattr(last_layer, "WORTH_IT", 2**62)
