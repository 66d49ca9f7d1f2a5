"""Augmentation against slow loops, and statistics against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from residualdroppath.data.augment import (
    channel_statistics,
    draw_mirrored,
    draw_shifts,
    mirror,
    normalise,
    shift,
    with_channels,
)
from residualdroppath.data.image_sources import InMemory


def images(batch: int, channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(1, 256, (batch, channels, height, width), generator=generator, dtype=torch.uint8)


def cropped_at_random(batch: torch.Tensor, padding: int, generator: torch.Generator) -> torch.Tensor:
    return shift(batch, padding, draw_shifts(len(batch), padding, generator))


def mirrored_at_random(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return mirror(batch, draw_mirrored(len(batch), generator))


def shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """The image moved by whole pixels, pixel by pixel; what moves in is 0."""
    out = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            from_row, from_column = row + down, column + right
            if 0 <= from_row < height and 0 <= from_column < width:
                out[:, row, column] = image[:, from_row, from_column]
    return out


@pytest.mark.parametrize("padding", [0, 1, 3, 9])
def test_crop_is_a_shift_by_the_generators_draws(padding: int) -> None:
    batch = images(6, 2, 5, 7)
    cropped = cropped_at_random(batch, padding, torch.Generator().manual_seed(11))
    draws = torch.randint(0, 2 * padding + 1, (2, 6, 1), generator=torch.Generator().manual_seed(11))[:, :, 0]
    expected = [shifted(image, int(draws[0, i]) - padding, int(draws[1, i]) - padding) for i, image in enumerate(batch)]
    assert cropped.dtype == torch.uint8 and torch.equal(cropped, torch.stack(expected))


def test_crop_without_padding_is_the_image() -> None:
    batch = images(4, 3, 6, 6)
    assert torch.equal(cropped_at_random(batch, 0, torch.Generator()), batch)


def test_crop_draws_every_shift_about_equally_and_apart() -> None:
    batch = torch.zeros(9000, 1, 3, 3, dtype=torch.uint8)
    batch[:, :, 1, 1] = 255  # where the dot lands tells the shift
    cropped = cropped_at_random(batch, 1, torch.Generator().manual_seed(0)).view(9000, 9)
    counts = torch.bincount(cropped.argmax(1), minlength=9)
    assert cropped.amax(1).eq(255).all()
    assert counts.min() > 850 and counts.max() < 1150  # 1000 expected, standard deviation 30


def test_mirror_is_a_flip_or_nothing_and_fair() -> None:
    batch = images(2000, 1, 2, 5)
    mirrored = mirrored_at_random(batch, torch.Generator().manual_seed(0))
    flipped = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(mirrored, batch, strict=True)])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(mirrored, batch, strict=True)])
    assert (flipped | same).all() and 880 < int(flipped.sum()) < 1120


def test_generator_decides_alone() -> None:
    batch = images(8, 1, 4, 4)
    torch.manual_seed(1)
    first = mirrored_at_random(cropped_at_random(batch, 2, g := torch.Generator().manual_seed(7)), g)
    torch.manual_seed(2)
    assert torch.equal(first, mirrored_at_random(cropped_at_random(batch, 2, g := torch.Generator().manual_seed(7)), g))
    assert not torch.equal(
        first, mirrored_at_random(cropped_at_random(batch, 2, g := torch.Generator().manual_seed(8)), g)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_numpys(channels: int) -> None:
    batch = images(30, channels, 9, 4)
    mean, deviation = channel_statistics(InMemory(batch))
    array = batch.numpy().astype(np.float64)
    assert mean == pytest.approx(array.mean((0, 2, 3)), rel=1e-12)
    assert deviation == pytest.approx(array.std((0, 2, 3)), rel=1e-12)


def test_images_of_one_colour_do_not_divide_by_zero() -> None:
    batch = torch.full((3, 1, 4, 4), 200, dtype=torch.uint8)
    mean, deviation = channel_statistics(InMemory(batch))
    assert mean == [200.0] and deviation == [1e-3]
    assert normalise(batch, torch.tensor(mean), torch.tensor(deviation)).abs().max() == 0


def test_normalised_images_have_mean_0_and_deviation_1() -> None:
    batch = images(50, 3, 8, 8)
    mean, deviation = channel_statistics(InMemory(batch))
    ready = normalise(batch, torch.tensor(mean), torch.tensor(deviation))
    assert ready.dtype == torch.float32
    assert ready.mean((0, 2, 3)).abs().max() < 1e-5
    assert (ready.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_grey_images_are_repeated_for_the_network() -> None:
    grey, colours = torch.rand(2, 1, 3, 4), torch.rand(2, 3, 3, 4)
    repeated = with_channels(grey, 3)
    assert repeated.shape == (2, 3, 3, 4) and (repeated == grey).all()
    assert with_channels(grey, 1) is grey and with_channels(colours, 3) is colours
