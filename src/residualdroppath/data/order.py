"""The order of the training images of an epoch, by its generator: any order alike, or one that reads shards through."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UserError
from .image_sources import Encoded, ImageSource


def draw_order(source: ImageSource, generator: torch.Generator, shuffle_buffer: int | None = None) -> Tensor:
    """int64[len(source)], each image once; of an equal generator the same.

    With `shuffle_buffer`, shards follow each other in a drawn order, and images are drawn from the next so many:
    what is read lies close together, as disks and networks like it.
    """
    require_shards(source, shuffle_buffer)
    shards = source.by_shard if isinstance(source, Encoded) else None
    if shuffle_buffer is None or shards is None:  # what is in memory is not read any more
        return torch.randperm(len(source), generator=generator)
    in_turn = torch.cat([shards[place] for place in torch.randperm(len(shards), generator=generator).tolist()])
    return in_turn[_buffered(len(in_turn), shuffle_buffer, generator)]


def require_shards(source: ImageSource, shuffle_buffer: int | None) -> None:
    """Raises `UserError` for images that are in no shards, and not in memory either."""
    if shuffle_buffer is not None and isinstance(source, Encoded) and source.by_shard is None:
        raise UserError(
            "`shuffle_buffer` is for data in tar files, hfds/ and tfds/, whose images are in shards; leave it out."
        )


def _buffered(length: int, size: int, generator: torch.Generator) -> Tensor:
    """0 to `length`, in the order in which they leave a buffer that holds `size` of them, at random places."""
    size = min(size, length)
    places: Sequence[int] = torch.randint(size, (length - size,), generator=generator).tolist()
    buffer, order = list(range(size)), []
    for following, place in enumerate(places, start=size):
        order.append(buffer[place])
        buffer[place] = following
    rest = torch.tensor(buffer)[torch.randperm(size, generator=generator)]
    return torch.cat([torch.tensor(order, dtype=torch.int64), rest])
