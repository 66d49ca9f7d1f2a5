"""The small network has the paper's shapes and size."""

from __future__ import annotations

import math

import pytest
import torch

from residualdroppath.models.small_resnet import BasicBlock, SmallResNet


def counted_by_hand(depth: int, width: int, in_channels: int, num_classes: int) -> int:
    """Weights of convolutions, two per channel of each norm, and the classifier."""
    total, channels = in_channels * width * 9 + 2 * width, width
    for stage in range(3):
        out = width * 2**stage
        for _ in range((depth - 2) // 6):
            total += channels * out * 9 + 2 * out + out * out * 9 + 2 * out
            total += channels * out + 2 * out if channels != out else 0
            channels = out
    return total + channels * num_classes + num_classes


@pytest.mark.parametrize(("depth", "width"), [(8, 1), (8, 4), (14, 8), (20, 16), (32, 3)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_size_is_that_of_the_formula(depth: int, width: int, in_channels: int) -> None:
    model = SmallResNet(depth, width, in_channels=in_channels, num_classes=7)
    assert sum(p.numel() for p in model.parameters()) == counted_by_hand(depth, width, in_channels, 7)


def test_depth_20_has_the_papers_0_27_million() -> None:
    assert round(sum(p.numel() for p in SmallResNet(20, 16).parameters()) / 1e6, 2) == 0.27


@pytest.mark.parametrize("size", [4, 8, 28, 33, 64])
def test_takes_small_images_and_halves_them_twice(size: int) -> None:
    model = SmallResNet(8, 2, in_channels=1, num_classes=5).eval()
    images = torch.randn(3, 1, size, size)
    assert model(images).shape == (3, 5)
    quarter = math.ceil(size / 4)
    assert model.blocks(model.stem(images)).shape == (3, 8, quarter, quarter)


@pytest.mark.parametrize("depth", [8, 14, 26])
def test_depth_counts_weight_layers(depth: int) -> None:
    model = SmallResNet(depth, 2)
    assert sum(isinstance(module, BasicBlock) for module in model.modules()) == (depth - 2) // 2
    # Projections do not count, as in the paper: the stem, two convolutions a block, the classifier.
    assert 1 + 2 * len(model.blocks) + 1 == depth


@pytest.mark.parametrize("depth", [-4, 0, 2, 7, 9, 11, 18])
def test_refuses_other_depths(depth: int) -> None:
    with pytest.raises(ValueError, match=f"`depth` must be 6n \\+ 2 .* got {depth}"):
        SmallResNet(depth, 4)


@pytest.mark.parametrize("width", [0, -3])
def test_refuses_no_width(width: int) -> None:
    with pytest.raises(ValueError, match=f"`width` must be at least 1, got {width}"):
        SmallResNet(8, width)
