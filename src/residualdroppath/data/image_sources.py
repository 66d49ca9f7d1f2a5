"""Where the pixels of images are: in memory as uint8 tensors, or encoded, and decoded when a batch needs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from .decoding import Decoded, decode, differs, read_header, same_size
from .stored import Item
from .workers import end_with_parent_alone

MEMORY_LIMIT = 4 * 2**30  # bytes; larger parts are decoded batch by batch


class ImageSource(Protocol):
    """Some images of one size: uint8[len, channels, size, size] when taken all."""

    def __len__(self) -> int: ...

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        """One uint8[batch, channels, size, size] for each of `indices`."""
        ...

    def subset(self, index: Tensor) -> ImageSource: ...


@dataclass(frozen=True)
class InMemory:
    """Images that lie in memory, uint8[len, channels, size, size]; how many were changed by decoding, and how.

    `encoded`: what they were decoded from, if anything.
    """

    images: Tensor
    remarks: Mapping[str, int] = field(default_factory=dict)
    encoded: Encoded | None = None

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        for index in indices:
            yield self.images[index.to(self.images.device)]

    def subset(self, index: Tensor) -> InMemory:
        return InMemory(self.images[index])


class Encoded(Dataset[Tensor]):
    """Images as files or encoded bytes, decoded to uint8[channels, size, size] when asked for.

    All must be of `stored_size`, if one is given, the size that needs no resizing by the user's choice.
    """

    def __init__(
        self,
        items: Sequence[Item],
        names: Sequence[str],
        *,
        channels: int,
        size: int,
        stored_size: tuple[int, int] | None = None,
        workers: int | None = None,
    ):
        self.items = items
        self.names = names
        self.channels = channels
        self.size = size
        self.stored_size = stored_size
        self.workers = workers

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        return self.decoded(index).pixels

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        yield from loaded(self, (index.tolist() for index in indices), self.workers)

    def subset(self, index: Tensor) -> Encoded:
        places: list[int] = index.tolist()
        return self._like(
            [self.items[place] for place in places], [self.names[place] for place in places], self.workers
        )

    def with_workers(self, workers: int) -> Encoded:
        """Decoded by so many processes, or with 0 by this one."""
        return self._like(self.items, self.names, workers)

    def _like(self, items: Sequence[Item], names: Sequence[str], workers: int | None) -> Encoded:
        return Encoded(
            items, names, channels=self.channels, size=self.size, stored_size=self.stored_size, workers=workers
        )

    def in_memory(self, title: str) -> InMemory:
        images = torch.empty(len(self), self.channels, self.size, self.size, dtype=torch.uint8)
        remarks: Counter[str] = Counter()
        console = Console(stderr=True)
        description = f"decoding {escape(title)}"
        for index in track(
            range(len(self)), description, console=console, transient=True, disable=not console.is_terminal
        ):
            images[index], found = self.decoded(index)
            remarks.update(found)
        return InMemory(images, remarks, self)

    @cached_property
    def transparent(self) -> int:
        """How many may be transparent, by their headers. Raises `UserError` where decoding would at once."""
        count = 0
        for item, name in zip(self.items, self.names, strict=True):
            header = read_header(item, name)
            if self.stored_size is not None and not same_size(header.size, self.stored_size):
                raise UserError(differs(name, header.size, self.stored_size))
            count += header.may_be_transparent
        return count

    @cached_property
    def by_shard(self) -> list[Tensor] | None:
        """Places of the images of each shard, in order; None where images are not in shards."""
        places: dict[str, list[int]] = {}
        for place, item in enumerate(self.items):
            if isinstance(item, Path | bytes):
                return None
            places.setdefault(item.shard, []).append(place)
        return [torch.tensor(each) for each in places.values()]

    @property
    def fits_memory(self) -> bool:
        return len(self) * self.channels * self.size**2 <= MEMORY_LIMIT

    def decoded(self, index: int) -> Decoded:
        """One image, and what was done to it."""
        return decode(
            self.items[index], self.names[index], channels=self.channels, size=self.size, stored_size=self.stored_size
        )


def loaded(
    dataset: Dataset[Tensor], keys: Iterable[list[Any]], workers: int | None = None, **options: Any
) -> Iterator[Tensor]:
    """Batches of what `dataset` holds under lists of keys, made by `workers` processes, or up to 8, by threads."""
    workers = min(8, torch.get_num_threads()) if workers is None else workers
    try:
        yield from DataLoader(
            dataset, batch_sampler=keys, num_workers=workers, worker_init_fn=end_with_parent_alone, **options
        )
    except UserError as error:  # a worker's error comes with its traceback written into the message
        message = str(error).rstrip().splitlines()[-1].removeprefix(f"{UserError.__module__}.UserError: ")
        raise UserError(message) from error


class DecodedOnce:
    """Images that are decoded when the first batch is asked for, and stay in memory from then on."""

    def __init__(self, encoded: Encoded, title: str):
        self.encoded = encoded
        self.title = title

    def __len__(self) -> int:
        return len(self.encoded)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[Tensor]:
        return self.held.batches(indices)

    def subset(self, index: Tensor) -> ImageSource:
        return DecodedOnce(self.encoded.subset(index), self.title)

    @cached_property
    def held(self) -> InMemory:
        return self.encoded.in_memory(self.title)


def encoded_images(
    items: Sequence[Item],
    names: Sequence[str],
    title: str,
    *,
    size: int | None,
    stored_size: tuple[int, int] | None,
) -> Encoded:
    """RGB images of `size`, or else all of `stored_size`, by default that of the first."""
    if not len(items):
        raise UserError(f"{title} holds no images.")
    if size is not None:
        return Encoded(items, names, channels=3, size=size)
    stored_size = stored_size or read_header(items[0], names[0]).size
    return Encoded(items, names, channels=3, size=min(stored_size), stored_size=stored_size)
