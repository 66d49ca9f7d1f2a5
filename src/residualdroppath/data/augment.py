"""Batches of images made ready for a network, on the device they lie on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .image_sources import DecodedOnce, ImageSource, InMemory

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def draw_shifts(batch: int, padding: int, generator: torch.Generator) -> Tensor:
    """int64[2, batch, 1]: how far each image of a batch is shifted down and right, in 0..2 * padding."""
    return torch.randint(0, 2 * padding + 1, (2, batch, 1), generator=generator)


def shift(images: Tensor, padding: int, shifts: Tensor) -> Tensor:
    """Each image shifted by up to `padding` pixels in each direction, zeros moving in; same shape and dtype."""
    batch, _, height, width = images.shape
    padded = F.pad(images, [padding] * 4)
    shifts = shifts.to(images.device, non_blocking=True)
    rows = (shifts[0] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (shifts[1] + torch.arange(width, device=images.device))[:, None, None, :]
    image = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[image, channel, rows, columns]


def draw_mirrored(batch: int, generator: torch.Generator) -> Tensor:
    """bool[batch]: which images of a batch are mirrored, each with probability 1/2."""
    return torch.rand(batch, generator=generator) < 0.5


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """The images, those that are `mirrored` left to right."""
    mirrored = mirrored.to(images.device, non_blocking=True)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def channel_statistics(source: ImageSource) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, in units of 1/255; ImageNet's where images do not fit into memory."""
    if isinstance(source, DecodedOnce):
        source = source.held
    if not isinstance(source, InMemory):
        return [255 * value for value in IMAGENET_MEAN], [255 * value for value in IMAGENET_STD]
    # Exact, from a histogram: a float copy of all images would take several times their memory.
    means, deviations = [], []
    values = torch.arange(256, dtype=torch.float64)
    for channel in source.images.unbind(1):
        share = torch.bincount(channel.flatten().cpu(), minlength=256).double()
        share /= share.sum()
        mean = float((share * values).sum())
        means.append(mean)
        deviations.append(max(float((share * (values - mean) ** 2).sum()) ** 0.5, 1e-3))
    return means, deviations


def normalise(images: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """uint8[batch, channels, height, width] as float32 with the statistics of the training images."""
    return (images.float() - mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1)


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Grey images [batch, 1, height, width] repeated for a network of `channels` channels; others as they are."""
    return images if images.shape[1] == channels else images.expand(-1, channels, -1, -1)
