"""One encoded image as the pixels that a network is given: upright, of 8 bits, without transparency, square."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from ..errors import UserError
from .stored import Item, file_of

# What was done to an image beyond resizing.
COMPOSED = "transparent parts composed on white"
TURNED = "turned as the EXIF orientation says"
SCALED = "scaled from 16 bits to 8"
FIRST_OF_SEVERAL = "several pictures in the file, the first taken"
DAMAGED_EXIF = "damaged EXIF data, so not turned"

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_WHITE_IS_ZERO = 258, 262, 0

# By Pillow's name of how pixels are stored.
_TO_EIGHT_BITS: Mapping[str, Callable[[int], int]] = {
    "L": int,
    "L;2": lambda value: value * 85,
    "L;4": lambda value: value * 17,
    "RGB": int,
    "RGB;16B": lambda value: value >> 8,
}


class Decoded(NamedTuple):
    """uint8[channels, size, size], and what was done to the image."""

    pixels: Tensor
    remarks: tuple[str, ...]


class Header(NamedTuple):
    """Width and height as stored, before any turn, and whether pixels may be transparent."""

    size: tuple[int, int]
    may_be_transparent: bool


def decode(
    item: Item, name: str, *, channels: int, size: int | None = None, stored_size: tuple[int, int] | None = None
) -> Decoded:
    """An image resized so that its shorter side is `size`, the centre kept.

    Raises `UserError` for what is no image, has no known range of values, or is not of `stored_size`, if given.
    """
    image, remarks = upright(item, name, channels=channels, stored_size=stored_size)
    return Decoded(_square(image, size or min(image.size), channels), remarks)


def upright(
    item: Item, name: str, *, channels: int, stored_size: tuple[int, int] | None = None
) -> tuple[Image.Image, tuple[str, ...]]:
    """The whole image, grey or in colour, and what was done to it. Raises `UserError` as `decode` does."""
    remarks: list[str] = []
    with _opened(item, name) as opened:
        if stored_size is not None and not same_size(opened.size, stored_size):
            raise UserError(differs(name, opened.size, stored_size))
        if getattr(opened, "is_animated", False):
            remarks.append(FIRST_OF_SEVERAL)
        _require_range(opened, name)
        _match_transparent_colour(opened, name)
        opened.load()
        image = _turned(_of_eight_bits(opened, remarks), _orientation(opened, remarks), remarks)
        image = _on_white(image, remarks).convert("L" if channels == 1 else "RGB")
    return image, tuple(remarks)


def read_header(item: Item, name: str) -> Header:
    """Raises `UserError` for what is no image; pixels are not decoded."""
    with _opened(item, name) as image:
        _require_range(image, name)
        return Header(image.size, image.has_transparency_data)


def opens(content: bytes) -> bool:
    """Whether some bytes begin as an image does."""
    try:
        read_header(content, "")
    except UserError:
        return False
    return True


def same_size(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two images are alike, upright or on their side."""
    return sorted(first) == sorted(second)


def differs(name: str, size: tuple[int, int], other: tuple[int, int]) -> str:
    return (
        f"`image_size` must be given for images of different sizes: {name} has {size[0]}x{size[1]} pixels, the first "
        f"training image {other[0]}x{other[1]}. All are then resized to that many pixels a side, the centre kept."
    )


@contextmanager
def _opened(item: Item, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(file_of(item)) as image:
            yield image
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged file can fail in any way that its reader knows
        raise UserError(f"{name} cannot be decoded as an image ({error}); replace it or remove it.") from error


def _match_transparent_colour(image: Image.Image, name: str) -> None:
    """The one transparent colour of a PNG as its pixels are decoded: Pillow leaves it in the depth of the file."""
    colour = image.info.get("transparency")
    if image.format != "PNG" or colour is None or image.mode not in ("L", "RGB"):
        return  # of palettes it is an index; greyscale of 16 bits is decoded as such
    raw = str(image.tile[0][3])  # pyright: ignore[reportAttributeAccessIssue]: of files, until they are loaded
    scale = _TO_EIGHT_BITS.get(raw)
    if scale is None:
        raise UserError(
            f"{name} has one transparent colour, in a depth that is not known here ({raw}); save it with an alpha "
            "channel, or without transparency."
        )
    image.info["transparency"] = scale(colour) if isinstance(colour, int) else tuple(map(scale, colour))


def _has_16_bits(image: Image.Image) -> bool:
    # 16-bit PGM comes in 32 bits, scaled to the range of 16; older Pillows give 16-bit PNG so as well.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG"))


def _require_range(image: Image.Image, name: str) -> None:
    if image.mode in ("I", "F") and not _has_16_bits(image):
        kind = "whole numbers of 32 bits" if image.mode == "I" else "floating-point numbers"
        raise UserError(f"{name} holds {kind}, so which value is white is not known; convert it to 8 or 16 bits.")


def _of_eight_bits(image: Image.Image, remarks: list[str]) -> Image.Image:
    """Greyscale of 16 bits scaled, where Pillow itself clips; other kinds as they are."""
    if not _has_16_bits(image):
        return image
    remarks.append(SCALED)
    values = np.asarray(image).astype(np.uint32)
    tags = getattr(image, "tag_v2", {})
    largest = 2 ** tags.get(_TIFF_BITS, (16,))[0] - 1
    grey = ((values * 255 + largest // 2) // largest).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO:  # Pillow inverts those of 8 bits alone
        grey = 255 - grey
    scaled = Image.fromarray(grey)
    if "transparency" in image.info:
        scaled.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return scaled


def _orientation(image: Image.Image, remarks: list[str]) -> int:
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as in `_opened`; the pixels are whole
        caught, orientation = [None], 1
    if caught:
        remarks.append(DAMAGED_EXIF)
    return 1 if caught else orientation


def _turned(image: Image.Image, orientation: int, remarks: list[str]) -> Image.Image:
    # Not `ImageOps.exif_transpose`: it also writes all EXIF data anew, which can fail on data that was read.
    turn = _TURNS.get(orientation)
    if turn is None:
        return image
    remarks.append(TURNED)
    return image.transpose(turn)


def _on_white(image: Image.Image, remarks: list[str]) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        return image
    remarks.append(COMPOSED)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _square(image: Image.Image, size: int, channels: int) -> Tensor:
    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0)
        image = image.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(image)).view(size, size, channels).permute(2, 0, 1).contiguous()
