"""Folders of images, one for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from residualdroppath.data import decoding
from residualdroppath.data.load import load_data
from residualdroppath.data.sources import read_source
from residualdroppath.errors import UserError

from .files import encoded, pixels, request, write_image_folder


def refused(folder: Path, **options: int) -> str:
    with pytest.raises(UserError) as error:
        load_data(request(str(folder), **options), validation_fraction=0.34)
    assert "\n" not in str(error.value)
    return str(error.value)


def decode(item: bytes, **options: int | None) -> Tensor:
    return decoding.decode(item, "x", **{"channels": 3, **options}).pixels  # pyright: ignore[reportArgumentType]


def test_images_and_labels_by_folder(tmp_path: Path) -> None:
    written = write_image_folder(tmp_path, classes=("zebra", "ant", "bee"))
    source = read_source(request(str(tmp_path)))
    assert (source.num_classes, source.channels, source.image_size, source.mirrored) == (3, 3, 10, True)
    assert source.classes == ("ant", "bee", "zebra")
    for split, part in ((source.train, "train"), (source.test, "test")):
        expected = [
            (written[f"{part}/{name}/{i}.png"], c) for c, name in enumerate(["ant", "bee", "zebra"]) for i in range(6)
        ]
        images, labels = next(iter(split.batches([torch.arange(len(split))])))
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), np.stack([array for array, _ in expected]))
        assert labels.tolist() == [label for _, label in expected]


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
    source = read_source(request(str(tmp_path), image_size=10))
    assert len(source.train) == 12 + 5
    images = next(iter(source.train.batches([torch.arange(17)])))[0]
    assert images.shape == (17, 3, 10, 10)
    assert np.array_equal(images[6].numpy(), np.broadcast_to(grey, (3, 10, 10)))
    share = alpha[:, :, 3:] / 255
    assert np.abs(images[7].permute(1, 2, 0).numpy() - (alpha[:, :, :3] * share + 255 * (1 - share))).max() < 1


def test_centre_is_kept_and_the_shorter_side_fits() -> None:
    wide = np.zeros((6, 18, 3), np.uint8)
    wide[:, 6:12] = [10, 20, 30]
    middle = decode(encoded(wide))
    assert torch.equal(middle, torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 6, 6))
    assert torch.equal(decode(encoded(wide.swapaxes(0, 1))), middle)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (7, 8), (299, 301)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_shape_becomes_the_size_asked_for(height: int, width: int, channels: int) -> None:
    image = decode(encoded(np.full((height, width, 3), 77, np.uint8)), channels=channels, size=9)
    assert image.shape == (channels, 9, 9) and image.unique().tolist() == [77]


@pytest.mark.parametrize("size", [10, 65, 300])
def test_size_is_that_of_all_images(tmp_path: Path, size: int) -> None:
    write_image_folder(tmp_path, size=size, per_class=2)
    assert read_source(request(str(tmp_path))).image_size == size
    assert f"images have {size}x{size} pixels as stored" in read_source(request(str(tmp_path))).notes
    assert read_source(request(str(tmp_path), image_size=16)).image_size == 16


@pytest.mark.parametrize("where", ["train/dog/5.png", "train/cat/0.png", "test/dog/3.png"])
def test_images_of_different_sizes_need_a_size(tmp_path: Path, where: str) -> None:
    write_image_folder(tmp_path)
    (tmp_path / where).write_bytes(encoded(pixels(0, 13, 20, 3)))
    message = refused(tmp_path)
    assert "`image_size` must be given for images of different sizes" in message
    assert "20x13" in message and "10x10" in message
    assert load_data(request(str(tmp_path), image_size=10), validation_fraction=0.34).image_size == 10


def test_images_that_lie_on_their_side_are_alike(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    for number, path in enumerate(sorted(tmp_path.rglob("*.png"))):
        path.write_bytes(encoded(pixels(0, *((12, 30) if number % 2 else (30, 12)), 3)))
    data = load_data(request(str(tmp_path)), validation_fraction=0.34)
    assert (
        data.image_size == 12 and "images have 12x30 pixels as stored, of which the centre is kept, 12x12" in data.notes
    )


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


def test_class_without_images_is_named(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    (tmp_path / "train" / "newt").mkdir()
    assert "class 2 (newt) has 0" in refused(tmp_path)


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
    message = refused(tmp_path, image_size=10)
    assert str(tmp_path / "train" / "dog" / "bad.jpg") in message and "replace it or remove it" in message


def test_brackets_in_a_name_are_no_markup(tmp_path: Path) -> None:
    folder = tmp_path / "a[/b]c"
    write_image_folder(folder)
    assert len(read_source(request(str(folder))).train) == 12
