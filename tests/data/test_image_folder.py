"""Folders of images, one for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from residualdroppath.data.images import InMemory, decode
from residualdroppath.data.sources import read_source
from residualdroppath.errors import UserError

from .files import encoded, pixels, request, write_image_folder


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        read_source(request(str(folder)))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_images_and_labels_by_folder(tmp_path: Path, test: str) -> None:
    written = write_image_folder(tmp_path, classes=("zebra", "ant", "bee"), test=test)
    source = read_source(request(str(tmp_path)))
    assert (source.num_classes, source.channels, source.image_size, source.mirrored) == (3, 3, 10, True)
    for split, part in ((source.train, "train"), (source.test, test)):
        assert isinstance(split.source, InMemory)
        expected = [
            (written[f"{part}/{name}/{i}.png"], c) for c, name in enumerate(["ant", "bee", "zebra"]) for i in range(6)
        ]
        assert np.array_equal(split.source.images.permute(0, 2, 3, 1).numpy(), np.stack([a for a, _ in expected]))
        assert split.labels.tolist() == [label for _, label in expected]


def test_other_kinds_of_images_become_rgb_of_one_size(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    folder = tmp_path / "train" / "cat"
    grey, alpha = pixels(1, 10, 10), pixels(2, 10, 10, 4)
    (folder / "a_grey.png").write_bytes(encoded(grey))
    (folder / "b_alpha.PNG").write_bytes(encoded(alpha))
    (folder / "c_wide.jpeg").write_bytes(encoded(pixels(3, 12, 40, 3), "JPEG"))
    (folder / "nested").mkdir()
    (folder / "nested" / "d_tall.bmp").write_bytes(encoded(pixels(4, 33, 7, 3), "BMP"))
    Image.fromarray(pixels(5, 10, 10, 3)).quantize(16).save(folder / "e_palette.png")
    (folder / "notes.txt").write_text("not an image, and not asked to be one")
    source = read_source(request(str(tmp_path)))
    assert len(source.train) == 12 + 5
    images = next(iter(source.train.batches([torch.arange(17)])))[0]
    assert images.shape == (17, 3, 10, 10)
    assert np.array_equal(images[6].numpy(), np.broadcast_to(grey, (3, 10, 10)))
    assert np.array_equal(images[7].permute(1, 2, 0).numpy(), alpha[:, :, :3])


def test_centre_is_kept_and_the_shorter_side_fits() -> None:
    wide = np.zeros((6, 18, 3), np.uint8)
    wide[:, 6:12] = [10, 20, 30]
    middle = decode(encoded(wide), "wide", channels=3)
    assert torch.equal(middle, torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 6, 6))
    assert torch.equal(decode(encoded(wide.swapaxes(0, 1)), "tall", channels=3), middle)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (7, 8), (299, 301)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_shape_becomes_the_size_asked_for(height: int, width: int, channels: int) -> None:
    image = decode(encoded(np.full((height, width, 3), 77, np.uint8)), "x", channels=channels, size=9)
    assert image.shape == (channels, 9, 9) and image.unique().tolist() == [77]


@pytest.mark.parametrize(("first", "expected"), [(64, 64), (65, 224)])
def test_size_is_the_first_images_if_small(tmp_path: Path, first: int, expected: int) -> None:
    write_image_folder(tmp_path, size=first, per_class=2)
    assert read_source(request(str(tmp_path))).image_size == expected
    assert read_source(request(str(tmp_path), image_size=16)).image_size == 16


def test_parts_that_are_missing(tmp_path: Path) -> None:
    assert "must hold train/CLASS/*.jpg and test/CLASS/*.jpg" in refused(tmp_path)
    (tmp_path / "train").mkdir()
    assert "must hold train/CLASS/*.jpg and test/CLASS/*.jpg" in refused(tmp_path)
    (tmp_path / "test").mkdir()
    assert "at least 2 classes, got 0" in refused(tmp_path)


def test_one_class_is_none(tmp_path: Path) -> None:
    write_image_folder(tmp_path, classes=("cat",))
    assert "at least 2 classes, got 1" in refused(tmp_path)


def test_class_of_the_test_part_alone(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    (tmp_path / "test" / "unicorn").mkdir()
    assert "classes that train/ lacks: unicorn" in refused(tmp_path)


def test_empty_test_part(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    for path in (tmp_path / "test").rglob("*.png"):
        path.unlink()
    assert "test holds no images" in refused(tmp_path)


@pytest.mark.parametrize(
    "broken",
    [
        encoded(pixels(0, 40, 40, 3), "JPEG")[:-300],
        encoded(pixels(0, 40, 40, 3), "JPEG")[:20],
        encoded(pixels(0, 40, 40, 3), "PNG")[:200],
        b"",
        b"just a text",
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\x01IHDR\x00\x00\x00\x00\x00",  # Pillow: ValueError
        b"BM" + b"\x00" * 12 + (40).to_bytes(4, "little") + b"\xff\xff\x0f\x00" * 2 + b"\x01\x00\x18\x00" + b"\0" * 24,
    ],
    ids=["truncated jpg", "header of a jpg", "truncated png", "empty", "text", "broken header", "huge"],
)
def test_file_that_is_not_an_image_is_named(tmp_path: Path, broken: bytes) -> None:
    write_image_folder(tmp_path)
    (tmp_path / "train" / "dog" / "bad.jpg").write_bytes(broken)
    message = refused(tmp_path)
    assert str(tmp_path / "train" / "dog" / "bad.jpg") in message and "replace it or remove it" in message


def test_brackets_in_a_name_are_no_markup(tmp_path: Path) -> None:
    folder = tmp_path / "a[/b]c"
    write_image_folder(folder)
    assert len(read_source(request(str(folder))).train) == 12
