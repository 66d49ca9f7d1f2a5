"""Labelled images, and a set of them cut into parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import UserError
from .decoding import COMPOSED
from .image_sources import DecodedOnce, Encoded, ImageSource, InMemory


@dataclass(frozen=True)
class Missing:
    """A part that a set does not have, and why: to use it is an error."""

    reason: str

    def __len__(self) -> int:
        return 0

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        raise UserError(self.reason)

    def subset(self, index: Tensor) -> Missing:
        return self


@dataclass(frozen=True)
class Split:
    """Images and their labels, int64[len]."""

    source: ImageSource
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs (uint8[batch, channels, size, size], int64[batch])."""
        for index, images in zip(indices, self.source.batches(indices), strict=True):
            yield images, self.labels[index.to(self.labels.device)]

    def subset(self, index: Tensor) -> Split:
        return Split(self.source.subset(index), self.labels[index])

    def with_workers(self, workers: int | None) -> Split:
        """Images that do not fit into memory are decoded by so many processes; None: as many as by default."""
        if workers is None or not isinstance(self.source, Encoded):
            return self
        return replace(self, source=self.source.with_workers(workers))

    def kept(self, title: str) -> Split:
        """Encoded images that fit into memory are decoded once, when they are used."""
        if isinstance(self.source, Encoded) and self.source.fits_memory:
            return replace(self, source=DecodedOnce(self.source, title))
        return self

    def decoded(self) -> Split:
        """Decoded now, or, if images do not fit into memory, found to be of one size where they have to be."""
        if isinstance(self.source, DecodedOnce):
            return replace(self, source=self.source.held)
        if isinstance(self.source, Encoded) and self.source.stored_size is not None:
            return self.checked()
        return self

    def checked(self) -> Split:
        """Known to be images, by their headers; decoded when they are used."""
        if isinstance(encoded := self._encoded, Encoded):
            _ = encoded.transparent
        return self

    def decode_early(self) -> None:
        """Images that are decoded once, when they are used, are decoded now. Raises `UserError` for a damaged one."""
        if isinstance(self.source, DecodedOnce):
            _ = self.source.held

    def remarks(self) -> Mapping[str, int]:
        """What decoding changed, and in how many images; before it is done, what headers let expect, once read."""
        source = vars(self.source).get("held", self.source)
        if isinstance(source, InMemory):
            return source.remarks
        count = vars(self._encoded).get("transparent", 0)
        return {f"if there are any, {COMPOSED}": count} if count else {}

    @property
    def _encoded(self) -> ImageSource:
        return self.source.encoded if isinstance(self.source, DecodedOnce) else self.source

    def to(self, device: torch.device) -> Split:
        """Move images that fit into memory to the device, so that batches need no copying."""
        source = self.decoded().source
        if isinstance(source, InMemory):
            source = replace(source, images=source.images.to(device))
        return Split(source, self.labels.to(device))


def missing_part(reason: str) -> Split:
    return Split(Missing(reason), torch.empty(0, dtype=torch.int64))


@dataclass(frozen=True)
class ImageData:
    """A data set cut into its parts, with what a network for it must know and a person should.

    `classes` are the names in order of the labels; `notes` what was found while reading: skipped files, parts that
    lack classes, where parts come from, the size of images.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    channels: int
    image_size: int
    mirrored: bool  # whether a mirrored image is of the same class
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def decoded(self) -> ImageData:
        """Ready for training: its images are decoded, those of the test part known to be images."""
        return replace(self, train=self.train.decoded(), validation=self.validation.decoded(), test=self.test.checked())

    @property
    def has_test(self) -> bool:
        return not isinstance(self.test.source, Missing)

    def require_test(self) -> None:
        """Raises `UserError` with the reason why there is no test part."""
        if isinstance(self.test.source, Missing):
            raise UserError(self.test.source.reason)


def resize(images: Tensor, size: int | None) -> Tensor:
    """uint8[len, channels, height, width] resized to size x size."""
    if size is None or images.shape[-1] == size:
        return images
    resized = torch.nn.functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
