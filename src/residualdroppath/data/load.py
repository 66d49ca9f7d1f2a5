"""`load_data`: a set by name, its validation part cut from the training images."""

from __future__ import annotations

import torch
from sklearn.model_selection import train_test_split

from ..errors import UserError
from .images import ImageData
from .sources import Request, read_source


def load_data(
    request: Request, *, validation_fraction: float = 0.1, train_size: int | None = None, split_seed: int = 0
) -> ImageData:
    """Read a set and cut it.

    Args:
        request: what to read, and from where.
        validation_fraction: of the training images, set aside to choose on; in (0, 1).
        train_size: keep this many of the remaining training images (each class in proportion).
        split_seed: of both cuts, whatever the seed of the training.
    """
    source = read_source(request)
    labels = source.train.labels
    _require_two_of_each(labels, source.num_classes, request.data)
    train, validation = _cut(torch.arange(len(labels)), labels, validation_fraction, split_seed, "validation_fraction")
    if train_size is not None:
        if not source.num_classes <= train_size <= len(train):
            raise UserError(f"`train_size` must be in [{source.num_classes}, {len(train)}], got {train_size}.")
        if train_size < len(train):
            _, train = _cut(train, labels, train_size, split_seed, "train_size")
    return ImageData(
        name=request.data,
        train=source.train.subset(train),
        validation=source.train.subset(validation),
        test=source.test,
        num_classes=source.num_classes,
        channels=source.channels,
        image_size=source.image_size,
        mirrored=source.mirrored,
    )


def _cut(
    index: torch.Tensor, labels: torch.Tensor, size: float | int, seed: int, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two parts of `index`, the second of `size` (a fraction or a number), each class in proportion."""
    try:
        rest, part = train_test_split(index.numpy(), test_size=size, random_state=seed, stratify=labels[index].numpy())
    except ValueError as error:
        raise UserError(f"`{name}`={size} cannot cut {len(index)} training images: {error}") from error
    return torch.from_numpy(rest).sort().values, torch.from_numpy(part).sort().values


def _require_two_of_each(labels: torch.Tensor, num_classes: int, data: str) -> None:
    counts = torch.bincount(labels, minlength=num_classes)
    if int(counts.min()) < 2:
        raise UserError(
            f"{data} must hold at least 2 training images of each class, class {int(counts.argmin())} has "
            f"{int(counts.min())}."
        )
