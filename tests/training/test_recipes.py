"""The files under `recipes/`: headers that a person needs, and a training of a few iterations by each.

Data are stand-ins of the right shape, sizes are cut down by options of the command line; all else is the recipe's.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from data.files import encoded, pixels, request, write_mnist, write_shards, write_tar
from residualdroppath.cli.main import run
from residualdroppath.cli.recipe_command import parse
from residualdroppath.cli.train import TrainCommand
from residualdroppath.data.image_sources import Encoded
from residualdroppath.data.sources import read_source
from residualdroppath.data.stored import Piece
from residualdroppath.training.recipe import TrainConfig

CHECKOUT = Path(__file__).parents[2]
FOLDERS = [Path(os.environ.get("RDP_DATA_DIR", "data")), CHECKOUT / "data", CHECKOUT.parent / "shared" / "data"]
RECIPES = sorted(path for path in (CHECKOUT / "recipes").glob("*.yaml") if "\nmethod:" in path.read_text())
# One in the default tests, the others in the full ones: networks of full size.
SMOKE = [
    pytest.param(path, id=path.stem, marks=[] if path.stem == "cifar10_resnet50" else pytest.mark.full)
    for path in RECIPES
]
SMALL = "--batch-size 8 --iterations 2 --no-test --device cpu --threads 1 --amp none --workers 1"


def commands(path: Path) -> list[str]:
    return [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#   ")]


def test_recipes_are_there() -> None:
    names = {path.stem for path in RECIPES}
    assert {"mnist_resnet50d", "cifar10_resnet50d", "cifar10_resnet50", "imagenet_resnet50d"} <= names
    assert {"imagenet_vit_small", "imagenet_convnext_tiny"} <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_headers(path: Path) -> None:
    header = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert all(word in header for word in ("hardware: ", "time: ", "expected accuracy: "))
    one, eight = commands(path)
    assert one.startswith(f"rdp train --config recipes/{path.name} ")
    assert eight.startswith(f"torchrun --nproc-per-node 8 -m residualdroppath train --config recipes/{path.name} ")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_commands_of_headers_are_understood(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    for line in commands(path):
        words = shlex.split(line)
        command = parse("train", TrainCommand, TrainConfig, words[words.index("train") + 1 :])
        assert command.recipe.epochs == TrainConfig.model_validate(command.recipe.model_dump()).epochs
        assert f"epochs: {command.recipe.epochs}\n" in path.read_text() and command.recipe.device == "cuda"


def stand_in(name: str, folder: Path) -> list[str]:
    """Options for data of the shape of a recipe's."""
    if name.startswith("mnist"):
        write_mnist(folder, compress=False)
        return ["--data-dir", str(folder), "--validation-fraction", "0.5"]
    if name.startswith("cifar10"):
        for part in ("train", "test"):
            images = {f"{k}/{i}.png": encoded(pixels(10 * k + i, 32, 32, 3)) for k in range(10) for i in range(4)}
            write_tar(folder / f"{part}.tar", images)
        return ["--data", str(folder), "--validation-fraction", "0.25"]
    options = ["--data", f"wds/{folder}", "--image-size", "64"]
    real = next((f / "tiny-imagenet-40" for f in FOLDERS if (f / "tiny-imagenet-40").is_dir()), None)
    if real is None:
        write_shards(folder, (40, 40), classes=40, size=64)
        write_shards(folder, (40,), part="val", classes=40, size=64)
        return options
    source = read_source(request(f"wds/{real}"))
    assert source.validation is not None
    for part, split, count in (("train", source.train, 2), ("val", source.validation, 1)):
        assert isinstance(split.source, Encoded)
        members = {}
        for label in range(40):
            for place in (split.labels == label).nonzero()[:count, 0].tolist():
                item = split.source.items[place]
                assert isinstance(item, Piece)
                members |= {f"{label}-{place}.jpeg": item.read(), f"{label}-{place}.cls": str(label).encode()}
        write_tar(folder / f"{part}-000.tar", members)
    return options


@pytest.mark.parametrize("path", SMOKE)
def test_trains(path: Path, tmp_path: Path) -> None:
    options = stand_in(path.stem, tmp_path / "data")
    words = ["train", "--config", str(path), *options, *SMALL.split(), "--out", str(tmp_path / "out")]
    assert run(words) == 0
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["iterations"] == 2 and result["method"] == "residual_drop_path"


@pytest.mark.full
def test_stand_in_of_cifar10_has_its_shape() -> None:
    folder = next((f / "cifar10-jpeg" for f in FOLDERS if (f / "cifar10-jpeg").is_dir()), None)
    if folder is None:
        pytest.skip("cifar10-jpeg is in none of RDP_DATA_DIR, data/ and ../shared/data")
    source = read_source(request(str(folder)))
    assert (len(source.train), len(source.test), source.num_classes, source.image_size) == (50_000, 10_000, 10, 32)
