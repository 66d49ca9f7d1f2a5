"""Images of every kind as the pixels that a person sees, or refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from residualdroppath.data import decoding
from residualdroppath.data.decoding import COMPOSED, DAMAGED_EXIF, FIRST_OF_SEVERAL, SCALED, TURNED, decode
from residualdroppath.errors import UserError

from .files import encoded, pixels


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(content: bytes) -> np.ndarray:
    return decode(content, "x", channels=1).pixels[0].numpy()


def colours(content: bytes) -> np.ndarray:
    return decode(content, "x", channels=3).pixels.permute(1, 2, 0).numpy()


def remarks(content: bytes) -> tuple[str, ...]:
    return decode(content, "x", channels=3).remarks


def tiff(values: bytes, *, side: int, bits: int, photometric: int = 1) -> bytes:
    """A greyscale TIFF written from its description: a header, one directory, one strip."""
    tags = [(256, side), (257, side), (258, bits), (259, 1), (262, photometric), (273, 8 + 2 + 9 * 12 + 4), (277, 1),
            (278, side), (279, len(values))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + values


def png(rows: list[bytes], *, width: int, depth: int, transparent: list[int]) -> bytes:
    """A PNG written from its description, of whose colours one is transparent: grey, or of three values in colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    kind = 0 if len(transparent) == 1 else 2
    return b"".join((
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)),
        chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)),
        chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        chunk(b"IEND", b""),
    ))  # fmt: skip


RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
SCALED_RAMP = (RAMP / 257).round().astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_greyscale_is_scaled(kind: str) -> None:
    content = saved(Image.fromarray(RAMP), kind, **({"irreversible": False} if kind == "JPEG2000" else {}))
    assert np.array_equal(grey(content), SCALED_RAMP)
    assert np.array_equal(colours(content), np.repeat(SCALED_RAMP[..., None], 3, axis=2))
    assert remarks(content) == (SCALED,)


def test_pgm_of_10_bits_is_scaled_by_its_own_range() -> None:
    values = np.array([[0, 511], [1000, 1023]])
    content = b"P5 2 2 1023\n" + values.astype(">u2").tobytes()
    assert np.abs(grey(content) - values / 1023 * 255).max() < 1


def test_tiff_of_12_bits_is_scaled_by_its_own_range() -> None:
    values = np.array([[0, 1000], [2000, 4095]])
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.tolist())
    assert np.abs(grey(tiff(packed, side=2, bits=12)) - values / 4095 * 255).max() < 1


def test_tiff_in_which_0_is_white() -> None:
    small = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(grey(tiff(small.tobytes(), side=8, bits=8, photometric=0)), 255 - small)
    assert np.array_equal(grey(tiff(RAMP.tobytes(), side=8, bits=16, photometric=0)), 255 - SCALED_RAMP)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("read", [grey, decoding.read_header], ids=["decoded", "header"])
def test_values_without_a_known_range_are_refused(dtype: Any, read: Any) -> None:
    content = saved(Image.fromarray(np.ones((4, 4), dtype)), "TIFF")
    with pytest.raises(UserError, match="which value is white is not known; convert it to 8 or 16 bits"):
        read(content, *(() if read is grey else ("x",)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(np.kron(pixels(1, 4, 4, 3), np.ones((8, 8, 1), np.uint8)))
    content = saved(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert np.array_equal(colours(content), expected)
    assert kind == "JPEG" or np.array_equal(expected, np.asarray(image)) == (orientation == 1)
    assert remarks(content) == ((TURNED,) if orientation > 1 and kind != "TIFF" else ())  # Pillow itself turns TIFF


def test_object_on_its_side_stands_up() -> None:
    """A red bar along the top of the scene, stored by a camera held upright: along the left of the file."""
    stored = np.zeros((8, 8, 3), np.uint8)
    stored[:, 0] = [255, 0, 0]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    seen = colours(saved(Image.fromarray(stored), "PNG", exif=exif))
    assert (seen[0] == [255, 0, 0]).all() and not seen[1:].any()


def test_damaged_exif_data_leave_the_image_as_stored() -> None:
    array = np.full((8, 8, 3), 100, np.uint8)
    content = saved(Image.fromarray(array), "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\x01")
    assert np.array_equal(colours(content), array) and remarks(content) == (DAMAGED_EXIF,)


def black_on_nothing(mode: str) -> Image.Image:
    """A black square in the middle; around it transparent pixels that are black, too."""
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:6, 2:6] = 255
    image = Image.new("RGBA", (8, 8))
    image.putalpha(Image.fromarray(alpha))
    return image.convert(mode)


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF")])
def test_transparency_is_composed_on_white(mode: str, kind: str) -> None:
    content = saved(black_on_nothing(mode), kind, **({"lossless": True} if kind == "WEBP" else {}))
    expected = np.full((8, 8), 255)
    expected[2:6, 2:6] = 0
    assert np.array_equal(grey(content), expected) and remarks(content) == (COMPOSED,)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "I;16"])
def test_one_transparent_colour_is_white(mode: str) -> None:
    values = np.full((8, 8), 7 if mode != "I;16" else 1799, np.uint8 if mode != "I;16" else np.uint16)
    values[2:6, 2:6] = 0
    image = Image.fromarray(values)
    image = image if mode in ("L", "I;16") else image.convert(mode)
    content = saved(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    expected = np.full((8, 8), 7)
    expected[2:6, 2:6] = 255
    assert np.array_equal(grey(content), expected) and COMPOSED in remarks(content)


@pytest.mark.parametrize(
    ("depth", "row", "transparent", "expected"),
    [
        (1, 0b01_000000, 1, [0, 255]),
        (1, 0b01_000000, 0, [255, 255]),
        (2, 0b0001_0000, 1, [0, 255]),
        (2, 0b0110_0000, 2, [85, 255]),
        (4, 0x17, 7, [17, 255]),
        (4, 0xF0, 15, [255, 0]),
    ],
)
def test_a_transparent_grey_of_few_bits(depth: int, row: int, transparent: int, expected: list[int]) -> None:
    content = png([bytes([row])] * 2, width=2, depth=depth, transparent=[transparent])
    assert grey(content).tolist() == [expected] * 2 and remarks(content) == (COMPOSED,)


def test_a_transparent_colour_of_16_bits() -> None:
    row = struct.pack(">6H", 0x01FF, 0x02FF, 0x0300, 0x01FF, 0x02FF, 0x0400)
    content = png([row] * 2, width=2, depth=16, transparent=[0x01FF, 0x02FF, 0x0400])
    assert colours(content).tolist() == [[[1, 2, 3], [255, 255, 255]]] * 2 and remarks(content) == (COMPOSED,)


def test_a_transparent_colour_of_unknown_depth_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_TO_EIGHT_BITS", {})
    with pytest.raises(UserError, match=r"one transparent colour, in a depth that is not known here \(L;2\)"):
        grey(png([b"\0"] * 2, width=2, depth=2, transparent=[1]))


def test_half_transparent_and_opaque_pixels() -> None:
    array = pixels(3, 8, 8, 4)
    share = array[..., 3:] / 255
    assert np.abs(colours(encoded(array)) - (array[..., :3] * share + 255 * (1 - share))).max() < 1
    array[..., 3] = 255
    assert np.array_equal(colours(encoded(array)), array[..., :3]) and remarks(encoded(array)) == ()


def test_animation_is_its_first_picture() -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    content = saved(first, "GIF", save_all=True, append_images=[second])
    assert (colours(content) == [255, 0, 0]).all() and remarks(content) == (FIRST_OF_SEVERAL,)


def test_ordinary_images_are_as_pillow_decodes_them() -> None:
    content = encoded(pixels(1, 16, 16, 3), "JPEG")
    with Image.open(io.BytesIO(content)) as opened:
        assert np.array_equal(colours(content), np.asarray(opened.convert("RGB")))
    assert remarks(content) == ()


def test_resizing_is_pillows() -> None:
    """Bilinear over the whole area: results of trainings hang on every pixel."""
    image = Image.fromarray(pixels(1, 40, 60, 3))
    resized = image.resize((24, 16), Image.Resampling.BILINEAR, reducing_gap=3.0).crop((4, 0, 20, 16))
    seen = decode(encoded(np.asarray(image)), "x", channels=3, size=16).pixels
    assert np.array_equal(seen.permute(1, 2, 0).numpy(), np.asarray(resized))


def test_header_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(pixels(1, 5, 9, 4)))
    assert decoding.read_header(tmp_path / "a.png", "a") == ((9, 5), True)
    assert decoding.opens((tmp_path / "a.png").read_bytes()) and not decoding.opens(b"no image")
