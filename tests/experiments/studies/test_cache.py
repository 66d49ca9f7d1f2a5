"""Keys change with what decides a result, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data.files import request, write_image_folder
from residualdroppath.data import image_sources
from residualdroppath.data.image_sources import Encoded, InMemory
from residualdroppath.data.images import Split
from residualdroppath.data.parts import Source
from residualdroppath.data.sources import read_source
from residualdroppath.experiments.compare.cost import Cost
from residualdroppath.experiments.studies import cache as cache_module
from residualdroppath.experiments.studies.cache import Cache, canonical, cost_key, fingerprint, run_key
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.training_options import AugmentationOptions, OptimizationOptions, WeightOptions


def key(data: str = "content", **options: Any) -> str:
    return run_key(canonical(TrainConfig(**{"iterations": 10, "device": "cpu", **options})), data)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.2}, {"seed": 1}, {"plan_seed": 1}, {"iterations": 11}, {"schedule": (2, 1)}, {"train_size": 50},
        {"cycle": "same_batch"}, {"validate_every": 2}, {"data": "mnist"}, {"amp": "bf16"}, {"num_classes": 3},
        {"dropped_part_lr": 2.0}, {"method": "plain"},
    ],
)  # fmt: skip
def test_what_decides_a_result(options: dict[str, Any]) -> None:
    assert key(**options) != key()


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 3}, {"data_dir": Path("elsewhere")}, {"download": True}, {"check_frozen": False}, {"epochs": 5},
        {"test": False}, {"device": "auto"},
    ],
)  # fmt: skip
def test_what_does_not(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert key(**options) == key()


def test_epochs_decide_where_iterations_are_not_given() -> None:
    assert key(iterations=None, epochs=5) != key(iterations=None)


def test_options_that_a_method_does_not_look_at() -> None:
    assert key(method="plain", drop_path_rate=0.5, schedule=(2, 1), plan_seed=3, cycle="same_batch") == key(
        method="plain"
    )
    assert key(method="drop_path", schedule=(2, 1), train_trunk=True, cycle="same_batch") == key(method="drop_path")
    assert key(method="drop_path", drop_path_rate=0.5) != key(method="drop_path")


def test_data_and_versions_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    assert key("other content") != before
    monkeypatch.setattr(cache_module, "CACHE_FORMAT", 2)
    after = key()
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert len({before, after, key()}) == 3


def test_an_option_that_came_later_leaves_earlier_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "CAME_LATER", {"warmup": TrainConfig().warmup})
    config = canonical(TrainConfig(device="cpu"))
    values = config.model_dump(mode="json")
    without = {name: value for name, value in values.items() if name != "warmup"}
    assert cache_module._deciding(values) == cache_module._deciding(without)
    assert "warmup" in cache_module._deciding({**values, "warmup": 0.3})


def test_options_that_came_later_leave_earlier_keys_at_their_defaults() -> None:
    """Those of augmentation, optimizers and weights are not in the key unless one of them is given."""
    groups = (AugmentationOptions, OptimizationOptions, WeightOptions)
    later = {name for group in groups for name in group.model_fields}
    deciding = cache_module._deciding(canonical(TrainConfig(device="cpu")).model_dump(mode="json"))
    assert len(later) > 30 and not later & deciding.keys()
    given = {"mixup": 0.2, "crop_ratio": (0.5, 2.0), "ema": 0.9, "min_lr": 0.01, "compile": True, "workers": 2}
    deciding = cache_module._deciding(canonical(TrainConfig(device="cpu", **given)).model_dump(mode="json"))
    assert later & deciding.keys() == given.keys() - {"workers"}
    assert key(workers=2, log=("wandb",)) == key()


def test_cost_depends_on_the_method_and_not_on_how_it_learns() -> None:
    def cost(threads: int = 1, **options: Any) -> str:
        ours, plain = (
            canonical(TrainConfig(**{"device": "cpu", "method": method, **options}))
            for method in ("residual_drop_path", "plain")
        )
        return cost_key(ours, plain, threads, "content")

    same = [cost(), cost(lr=0.5), cost(epochs=9), cost(iterations=99), cost(seed=4), cost(train_size=50)]
    assert len(set(same)) == 1
    others = [cost(2), cost(drop_path_rate=0.5), cost(freeze="stop_gradient"), cost(batch_size=64), cost(depth=8)]
    assert len({same[0], *others}) == 6
    falling = [cost(rate_over_time="decay", **length) for length in ({}, {"iterations": 9}, {"iterations": 99})]
    assert len({*falling}) == 1 and falling[0] != same[0]  # timed once, before the length is known


def test_fingerprint_of_content() -> None:
    def source(pixel: int = 0, label: int = 0) -> Source:
        images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
        images[0, 0, 0, 0] = pixel
        split = Split(InMemory(images), torch.tensor([label, 0, 1, 1]))
        return Source(split, split, 2, 1, 2, mirrored=False)

    assert fingerprint(source()) == fingerprint(source())
    assert len({fingerprint(source()), fingerprint(source(pixel=1)), fingerprint(source(label=1))}) == 3


def test_fingerprint_of_files_is_that_of_their_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So runs of the time when sets were decoded as they were read are still found."""
    write_image_folder(tmp_path)
    files = read_source(request(str(tmp_path)))
    assert isinstance(files.train.source, Encoded)
    train, test = (split.kept("").decoded() for split in (files.train, files.test))
    assert isinstance(train.source, InMemory)
    pixels = Source(train, test, 2, 3, 10, mirrored=True)
    assert fingerprint(files) == fingerprint(pixels)
    assert fingerprint(replace(pixels, validation=test)) != fingerprint(pixels)
    monkeypatch.setattr(image_sources, "MEMORY_LIMIT", 0)
    assert fingerprint(files) != fingerprint(pixels)


def test_costs_are_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.cost("a") is None
    cache.keep_cost("a", Cost(0.7, 1.4, 9))
    assert Cache(tmp_path).cost("a") == Cost(0.7, 1.4, 9)


def test_keys_of_recipes_without_later_options_are_those_of_format_1() -> None:
    """An option that is left at its default, and is a list or a path, once changed none of them."""
    values = canonical(TrainConfig(device="cpu")).model_dump(mode="json")
    assert not set(cache_module.CAME_LATER) & cache_module._deciding(values).keys()


def test_weights_to_start_from_decide_by_their_content(tmp_path: Path) -> None:
    for name, value in (("a.pth", 0), ("moved.pth", 0), ("b.pth", 1)):
        torch.save({"weight": torch.full((2, 2), value)}, tmp_path / name)
    first, moved, other = (key(weights=tmp_path / name) for name in ("a.pth", "moved.pth", "b.pth"))
    assert first == moved and len({first, other, key()}) == 3
