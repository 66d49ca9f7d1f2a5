"""Labelled images as uint8 tensors in memory, or decoded when a batch needs them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from rich.markup import escape
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError

MEMORY_LIMIT = 4 * 2**30  # bytes; larger sets are decoded batch by batch


class ImageSource(Protocol):
    """Some images of one size: uint8[len, channels, size, size] when taken all."""

    def __len__(self) -> int: ...

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        """One uint8[batch, channels, size, size] for each of `indices`."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Images that lie in memory, uint8[len, channels, size, size]."""

    images: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        for index in indices:
            yield self.images[index.to(self.images.device)]


class Encoded(Dataset[Tensor]):
    """Images as files or encoded bytes, decoded to uint8[channels, size, size] when asked for."""

    def __init__(self, items: Sequence[Path | bytes], names: Sequence[str], *, channels: int, size: int):
        self.items = items
        self.names = names
        self.channels = channels
        self.size = size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        return decode(self.items[index], self.names[index], channels=self.channels, size=self.size)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        workers = min(8, torch.get_num_threads())
        try:
            yield from DataLoader(self, batch_sampler=[index.tolist() for index in indices], num_workers=workers)
        except UserError as error:  # a worker's error comes with its traceback written into the message
            message = str(error).rstrip().splitlines()[-1].removeprefix(f"{UserError.__module__}.UserError: ")
            raise UserError(message) from error

    def in_memory(self, title: str) -> InMemory:
        images = torch.empty(len(self), self.channels, self.size, self.size, dtype=torch.uint8)
        for index in track(range(len(self)), description=f"decoding {escape(title)}", transient=True):
            images[index] = self[index]
        return InMemory(images)

    @property
    def num_bytes(self) -> int:
        return len(self) * self.channels * self.size**2


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
        if isinstance(self.source, InMemory):
            return Split(InMemory(self.source.images[index]), self.labels[index])
        return Split(_Part(self.source, index), self.labels[index])

    def to(self, device: torch.device) -> Split:
        """Move images that lie in memory to the device, so that batches need no copying."""
        source = self.source
        if isinstance(source, InMemory):
            source = replace(source, images=source.images.to(device))
        return Split(source, self.labels.to(device))


@dataclass(frozen=True)
class _Part:
    source: ImageSource
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        return self.source.batches([self.index[index] for index in indices])


@dataclass(frozen=True)
class ImageData:
    """A data set cut into its parts, with what a network for it must know."""

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    channels: int
    image_size: int
    mirrored: bool  # whether a mirrored image is of the same class


def decode(item: Path | bytes, name: str, *, channels: int, size: int | None = None) -> Tensor:
    """An encoded image as uint8[channels, size, size]; the shorter side is resized to `size`, the centre kept."""
    try:
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} cannot be decoded as an image ({error}); replace it or remove it.") from error
    size = size or min(image.size)
    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
        image = image.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(image)).view(size, size, channels).permute(2, 0, 1).contiguous()


def load_images(items: Sequence[Path | bytes], names: Sequence[str], title: str, size: int | None) -> ImageSource:
    """RGB images, in memory if they fit. Without a size: the first image's if small, else 224."""
    if not len(items):
        raise UserError(f"{title} holds no images.")
    if size is None:
        first = decode(items[0], names[0], channels=3).shape[-1]
        size = first if first <= 64 else 224
    encoded = Encoded(items, names, channels=3, size=size)
    return encoded.in_memory(title) if encoded.num_bytes <= MEMORY_LIMIT else encoded


def resize(images: Tensor, size: int | None) -> Tensor:
    """uint8[len, channels, height, width] resized to size x size."""
    if size is None or images.shape[-1] == size:
        return images
    resized = torch.nn.functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
