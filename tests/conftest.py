"""What all tests need before they import anything, and the marker `pairs`."""

# ruff: noqa: E402, numpy and torch read the environment when they are imported

from __future__ import annotations

import os

# Tiny arrays, and a worker per core: more threads only wait for each other, at several times the cost.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import pytest
import torch

from residualdroppath.models.torchvision_ops import ensure_torchvision_ops
from tiers import is_taken

ensure_torchvision_ops()

torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What the default tier does not take of products marked `pairs` belongs to the full tier."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("pairs"):
            lengths = [len(marker.args[1]) for marker in item.iter_markers("parametrize")]
            if not is_taken(next(iter(item.callspec.indices.values())), lengths):
                item.add_marker(pytest.mark.full)
