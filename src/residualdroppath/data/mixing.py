"""Random erasing, mixup and cutmix of batches that are ready for a network: timm's, from seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.torchvision_ops import ensure_torchvision_ops
from .augmented import seeded


def eraser(probability: float, mode: str, count: int) -> Callable[[Tensor, Sequence[int]], Tensor]:
    """A function of normalised images float[batch, channels, size, size] and a seed for each, which changes them."""
    ensure_torchvision_ops()
    from timm.data.random_erasing import RandomErasing

    # Noise is drawn on the CPU, so that it is the same on all devices.
    erasing = RandomErasing(probability, mode=mode, max_count=count, device="cpu")

    def erase(images: Tensor, seeds: Sequence[int]) -> Tensor:
        for image, seed in zip(images, seeds, strict=True):
            with seeded(seed):
                erasing(image)
        return images

    return erase


class Mixing:
    """Mixup and cutmix of neighbours, 2k and 2k + 1, so that rows of one process need no others.

    timm mixes the first image with the last, and so on: batches are put into an order in which these are neighbours.
    """

    def __init__(self, num_classes: int, **options: Any):
        """`options` are those of timm's `Mixup`."""
        ensure_torchvision_ops()
        from timm.data.mixup import Mixup

        self.mixup = Mixup(label_smoothing=0.0, num_classes=num_classes, **options)

    def __call__(self, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images, and labels as shares float[batch, classes].

        With `mode` batch `seeds` is one number for all; else one for each pair.
        """
        if len(seeds) == 1:
            pairs = torch.arange(len(images), device=images.device).view(-1, 2)
            order = torch.cat([pairs[:, 0], pairs[:, 1].flip(0)])
            with seeded(seeds[0]):
                mixed, shares = self.mixup(images[order], labels[order])
            back = order.argsort()
            return mixed[back], shares[back].to(images.dtype)
        mixed, shares = images.clone(), []
        for pair, seed in enumerate(seeds):
            rows = slice(2 * pair, 2 * pair + 2)
            with seeded(seed):
                mixed[rows], share = self.mixup(images[rows].clone(), labels[rows])
            shares.append(share)
        return mixed, torch.cat(shares).to(images.dtype)
