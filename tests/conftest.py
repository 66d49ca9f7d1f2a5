"""What all tests need before they import anything, and the marker `pairs`."""

from __future__ import annotations

import pytest
import torch

from residualdroppath.models.torchvision_ops import ensure_torchvision_ops
from tiers import is_taken

ensure_torchvision_ops()

torch.set_num_threads(1)  # tiny tensors, and a worker per core


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What the default tier does not take of products marked `pairs` belongs to the full tier."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("pairs"):
            lengths = [len(marker.args[1]) for marker in item.iter_markers("parametrize")]
            if not is_taken(next(iter(item.callspec.indices.values())), lengths):
                item.add_marker(pytest.mark.full)
