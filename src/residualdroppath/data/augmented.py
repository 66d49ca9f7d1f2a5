"""Images augmented one by one by timm's transforms, each from a seed of its own, in worker processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError, first_line
from ..models.torchvision_ops import ensure_torchvision_ops
from .decoding import upright
from .image_sources import Encoded, ImageSource, InMemory, loaded

Key = tuple[int, int]  # of an augmented image: its number and a seed


@dataclass(frozen=True)
class PerImage:
    """What timm does to single images: random resized crops (none without `crop_scale`), a policy, colour jitter."""

    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    auto_augment: str | None = None
    color_jitter: float | None = None

    @property
    def acts(self) -> bool:
        return self.crop_scale is not None or self.auto_augment is not None or bool(self.color_jitter)

    def transform(self, size: int, mean: Sequence[float]) -> Callable[[Image.Image], Tensor]:
        """From a colour image to uint8[3, size, size]; `mean` in units of 1/255 fills what rotations leave empty.

        Raises `UserError` for a policy that timm does not have.
        """
        ensure_torchvision_ops()
        from timm.data.transforms_factory import create_transform

        jitter: Any = self.color_jitter or None
        try:
            made: Any = create_transform(
                size,
                is_training=True,
                scale=self.crop_scale or (1.0, 1.0),  # the whole of a square image, as it is
                ratio=self.crop_ratio if self.crop_scale else (1.0, 1.0),
                hflip=0.0,  # whole batches are mirrored
                color_jitter=jitter,
                auto_augment=self.auto_augment,
                interpolation=self.interpolation,
                mean=tuple(value / 255 for value in (mean if len(mean) == 3 else [mean[0]] * 3)),
                normalize=False,
            )
            for operation in _operations(made):
                if operation.name.startswith("Posterize"):
                    operation.aug_fn = _posterize
            return made
        except Exception as error:  # each policy fails in its own way
            raise UserError(
                f"`auto_augment` must be a policy of timm, such as rand-m9-mstd0.5-inc1, original or augmix-m3-w3, got "
                f"{self.auto_augment!r} ({first_line(error)})."
            ) from error


class Augmented(Dataset[Tensor]):
    """The images of a source under keys (number, seed): uint8[channels, size, size], the same for the same key."""

    def __init__(self, source: ImageSource, per_image: PerImage, mean: Sequence[float]):
        """`source` is in memory, or encoded: files are opened anew for random crops of what else was cut or resized."""
        held = source if isinstance(source, InMemory) else None
        encoded = source if isinstance(source, Encoded) else held.encoded if held is not None else None
        if encoded is None and held is None:
            raise TypeError(f"images of {type(source).__name__} have no numbers to be augmented by")
        self._crops = per_image.crop_scale is not None
        # In memory images are as in their files, or no random crop needs what was cut off.
        self._held = held.images.cpu() if held is not None and not (self._crops and _was_resized(encoded)) else None
        self._encoded = encoded
        self.channels = held.images.shape[1] if held is not None else encoded.channels  # pyright: ignore[reportOptionalMemberAccess]
        size = held.images.shape[2] if held is not None else encoded.size  # pyright: ignore[reportOptionalMemberAccess]
        self.transform = per_image.transform(size, mean)

    def __getitem__(self, key: Key) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        number, seed = key
        image = self._image(number).convert("RGB")
        with seeded(seed):
            augmented = self.transform(image)
        return augmented[: self.channels]  # a grey image is grey in all three

    def batches(
        self, keys: Iterable[list[Key]], workers: int | None = None, *, pinned: bool = False
    ) -> Iterator[Tensor]:
        """uint8[batch, channels, size, size] for each list of keys."""
        # A loader draws from a generator as it begins: from one of its own, so that others do not go by it.
        yield from loaded(self, keys, workers, generator=torch.Generator(), pin_memory=pinned)

    def _image(self, number: int) -> Image.Image:
        if self._held is not None:
            pixels: Any = self._held[number].permute(1, 2, 0).numpy()
            return Image.fromarray(pixels[:, :, 0] if self.channels == 1 else pixels)
        encoded = self._encoded
        assert encoded is not None
        if not self._crops:
            return Image.fromarray(encoded[number].permute(1, 2, 0).numpy())
        item, name = encoded.items[number], encoded.names[number]
        return upright(item, name, channels=3, stored_size=encoded.stored_size)[0]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the generators of Python, NumPy and torch (CPU) start from `seed`; afterwards they are as before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _operations(transform: Any) -> Iterator[Any]:
    """The operations of timm's policies, each by itself."""
    for part in transform.transforms:
        yield from getattr(part, "ops", ())
        yield from (operation for several in getattr(part, "policy", ()) for operation in several)


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's, black for 0 bits as it always was; Pillow 13 raises `ValueError` for them, so that trainings end."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits else image.point(lambda value: 0)


def _was_resized(encoded: Encoded | None) -> bool:
    return encoded is not None and encoded.stored_size != (encoded.size, encoded.size)
