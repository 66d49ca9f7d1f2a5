"""`load_data`: a set by name, its validation part cut from the training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..errors import UserError
from .images import ImageData, Split
from .parts import Source
from .request import Request
from .sources import read_source


def load_data(request: Request, **cuts: Any) -> ImageData:
    """Read a set, cut it (`cut_data`), and decode what training needs."""
    return cut_data(read_source(request), request.data, **cuts).decoded()


def cut_data(
    source: Source,
    name: str,
    *,
    validation_fraction: float = 0.1,
    train_size: int | None = None,
    images_per_class: int | None = None,
    num_classes: int | None = None,
    class_seed: int | None = None,
    split_seed: int = 0,
) -> ImageData:
    """The parts of a set that a training uses, which alone are decoded, when they are used.

    Args:
        source: all images, of the set called `name`.
        validation_fraction: of the training images, set aside to choose on; in (0, 1). Not of a set that has a
            validation part of its own.
        train_size: keep this many of the remaining training images (each class in proportion).
        images_per_class: of these, keep this many of each class.
        num_classes: keep the images of this many classes, the first, or those that `class_seed` chooses.
        split_seed: of all other cuts, whatever the seed of the training.
    """
    source = _some_classes(source, num_classes, class_seed)
    labels = source.train.labels
    _require_two_of_each(labels, source.num_classes, source.classes, name)
    train = torch.arange(len(labels))
    if source.validation is None:
        train, cut = _cut(train, labels, validation_fraction, split_seed, "validation_fraction")
        validation = source.train.subset(cut)
        origin = f"validation images are cut from those of training (`validation_fraction` {validation_fraction:g})"
    else:
        validation = source.validation
        origin = "validation images are the set's own, `validation_fraction` has no effect"
    if train_size is not None:
        if not source.num_classes <= train_size <= len(train):
            raise UserError(f"`train_size` must be in [{source.num_classes}, {len(train)}], got {train_size}.")
        if train_size < len(train):
            _, train = _cut(train, labels, train_size, split_seed, "train_size")
    if images_per_class is not None:
        train = _of_each_class(train, labels, source.num_classes, images_per_class, split_seed)
    return ImageData(
        name=name,
        train=source.train.subset(train).kept("training images"),
        validation=validation.kept("validation images"),
        test=source.test.kept("test images"),
        num_classes=source.num_classes,
        channels=source.channels,
        image_size=source.image_size,
        mirrored=source.mirrored,
        classes=source.classes,
        notes=(origin, *source.notes),
    )


def _cut(
    index: torch.Tensor, labels: torch.Tensor, size: float | int, seed: int, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two parts of `index`, the second of `size` (a fraction or a number), each class in proportion."""
    from sklearn.model_selection import train_test_split  # late: slow to import

    try:
        rest, part = train_test_split(index.numpy(), test_size=size, random_state=seed, stratify=labels[index].numpy())
    except ValueError as error:
        raise UserError(f"`{name}`={size} cannot cut {len(index)} training images: {error}") from error
    return torch.from_numpy(rest).sort().values, torch.from_numpy(part).sort().values


def _some_classes(source: Source, num_classes: int | None, seed: int | None) -> Source:
    """The images of `num_classes` classes, which are numbered anew in their order."""
    if num_classes is None:
        return source
    if num_classes > source.num_classes:
        raise UserError(f"`num_classes` must be at most the set's {source.num_classes} classes, got {num_classes}.")
    chosen = torch.arange(source.num_classes)
    if seed is not None:
        chosen = torch.randperm(source.num_classes, generator=torch.Generator().manual_seed(seed))
    kept = chosen[:num_classes].sort().values
    number = torch.full((source.num_classes,), -1)
    number[kept] = torch.arange(num_classes)

    def only(split: Split) -> Split:
        part = split.subset((number[split.labels] >= 0).nonzero()[:, 0])
        return replace(part, labels=number[part.labels])

    return replace(
        source,
        train=only(source.train),
        validation=source.validation and only(source.validation),
        test=only(source.test),
        num_classes=num_classes,
        classes=tuple(source.classes[place] for place in kept.tolist()) if source.classes else (),
    )


def _of_each_class(index: torch.Tensor, labels: torch.Tensor, num_classes: int, count: int, seed: int) -> torch.Tensor:
    """`count` of `index` of each class, by seed: a larger count holds all that a smaller one does."""
    counts = torch.bincount(labels[index], minlength=num_classes)
    if int(counts.min()) < count:
        raise UserError(
            f"`images_per_class` must be at most the {int(counts.min())} training images of class "
            f"{int(counts.argmin())}, got {count}."
        )
    shuffled = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))]
    of_class = [shuffled[labels[shuffled] == label][:count] for label in range(num_classes)]
    return torch.cat(of_class).sort().values


def _require_two_of_each(labels: torch.Tensor, num_classes: int, classes: Sequence[str], data: str) -> None:
    counts = torch.bincount(labels, minlength=num_classes)
    if int(counts.min()) < 2:
        fewest = int(counts.argmin())
        name = f" ({classes[fewest]})" if classes else ""
        raise UserError(
            f"{data} must hold at least 2 training images of each class, class {fewest}{name} has {int(counts.min())}."
        )
