"""Images augmented by timm are those that timm makes, from their own seeds, whoever makes them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from residualdroppath.data.augmented import Augmented, Key, PerImage, _posterize, seeded
from residualdroppath.data.image_sources import Encoded, InMemory
from residualdroppath.errors import UserError
from residualdroppath.models.torchvision_ops import ensure_torchvision_ops

from .files import encoded, pixels

POLICY = "rand-m9-mstd0.5-inc1"
MEAN = [120.0, 110.0, 100.0]


def in_memory(count: int = 8, channels: int = 3, size: int = 16) -> InMemory:
    return InMemory(torch.from_numpy(pixels(1, count, channels, size, size)))


def files(folder: Path, count: int = 4, *, size: int = 8) -> Encoded:
    """Images of 20x30 pixels, of which a square of `size` is wanted."""
    paths = []
    for number in range(count):
        paths.append(folder / f"{number}.png")
        paths[-1].write_bytes(encoded(pixels(number, 20, 30, 3)))
    return Encoded(paths, [path.name for path in paths], channels=3, size=size)


def seed_all() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


def draw_of_each() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def draws_inside(seed: int) -> tuple[float, float, float]:
    with seeded(seed):
        return draw_of_each()


def test_generators_are_seeded_inside_and_go_on_afterwards() -> None:
    seed_all()
    expected = [draw_of_each(), draw_of_each()]
    seed_all()
    found = [draw_of_each()]
    assert draws_inside(7) == draws_inside(7) != draws_inside(8)
    assert [*found, draw_of_each()] == expected


def test_pixels_are_those_of_timm(tmp_path: Path) -> None:
    """Of whole files, not of the squares that are cut from them."""
    ensure_torchvision_ops()
    from timm.data.transforms_factory import create_transform

    source = files(tmp_path)
    augmented = Augmented(
        source, PerImage(crop_scale=(0.08, 1.0), auto_augment="original", interpolation="random"), MEAN
    )
    of_timm = create_transform(
        8,
        is_training=True,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        hflip=0.0,
        auto_augment="original",
        interpolation="random",
        mean=tuple(value / 255 for value in MEAN),
        normalize=False,
    )
    for number in range(4):
        for seed in range(5):
            with seeded(seed):
                expected: Tensor = of_timm(Image.open(source.items[number]))  # pyright: ignore
            assert torch.equal(augmented[number, seed], expected)


@pytest.mark.parametrize("per_image", [PerImage(crop_scale=(0.2, 1)), PerImage(auto_augment=POLICY)])
@pytest.mark.parametrize("kind", ["memory", "files", "memory of files"])
def test_workers_do_not_matter(tmp_path: Path, kind: str, per_image: PerImage) -> None:
    source = in_memory(4) if kind == "memory" else files(tmp_path)
    if kind == "memory of files":
        source = source.in_memory("")  # pyright: ignore[reportAttributeAccessIssue]
    augmented = Augmented(source, per_image, MEAN)
    keys: list[list[Key]] = [[(0, 5), (3, 6)], [(1, 7), (0, 8)]]
    alone = [torch.stack([augmented[key] for key in batch]) for batch in keys]
    assert alone[0].dtype == torch.uint8 and not torch.equal(alone[0][0], alone[1][1])
    for workers in (0, 2):
        before = torch.get_rng_state()
        assert all(map(torch.equal, augmented.batches(iter(keys), workers), alone))
        assert torch.equal(torch.get_rng_state(), before)


def test_crops_of_what_is_in_memory_are_those_of_its_files(tmp_path: Path) -> None:
    source, per_image = files(tmp_path), PerImage(crop_scale=(0.08, 1))
    held = Augmented(source.in_memory(""), per_image, MEAN)
    assert torch.equal(held[2, 3], Augmented(source, per_image, MEAN)[2, 3])


def test_policy_without_crops_sees_the_square_that_is_cut(tmp_path: Path) -> None:
    source, per_image = files(tmp_path), PerImage(auto_augment="rand-m0-n1-p0")  # nothing is done
    for of in (source, source.in_memory("")):
        assert torch.equal(Augmented(of, per_image, MEAN)[1, 0], source[1])


@pytest.mark.parametrize("per_image", [PerImage(auto_augment=POLICY), PerImage(color_jitter=0.4, crop_scale=(0.5, 1))])
def test_grey_images_stay_grey(per_image: PerImage) -> None:
    source = in_memory(channels=1)
    augmented = Augmented(source, per_image, [100.0])
    seen = [augmented[0, seed] for seed in range(20)]
    assert all(image.shape == (1, 16, 16) for image in seen)
    assert any(not torch.equal(image, source.images[0]) for image in seen)


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "v0", "original", "3a", "augmix-m3-w3", "rand-m10-inc1"])
def test_policies_of_timm(policy: str) -> None:
    augmented = Augmented(in_memory(1), PerImage(auto_augment=policy), MEAN)
    assert len({augmented[0, seed].numpy().tobytes() for seed in range(60)}) > 10


def test_no_bits_are_black() -> None:
    image = Image.fromarray(pixels(0, 4, 4, 3))
    assert not np.asarray(_posterize(image, 0)).any()
    assert np.array_equal(np.asarray(_posterize(image, 3)), np.asarray(image) & 0b11100000)
    assert _posterize(image, 8) is image


@pytest.mark.parametrize("policy", ["nonsense", "rand-q4"])
def test_policy_that_timm_does_not_have(policy: str) -> None:
    with pytest.raises(UserError, match="`auto_augment` must be a policy of timm") as error:
        Augmented(in_memory(), PerImage(auto_augment=policy), MEAN)
    assert "\n" not in str(error.value)
