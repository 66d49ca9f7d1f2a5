"""An analysis: what its record holds, against direct measurements on the same network and images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from residualdroppath.errors import UserError
from residualdroppath.experiments.network_report.config import MEASURES, AnalyzeConfig
from residualdroppath.experiments.network_report.deletion_runs import random_orders, set_sizes, swapped
from residualdroppath.experiments.network_report.measure import plain_values
from residualdroppath.experiments.network_report.run import Analysis, analyze
from residualdroppath.experiments.network_report.sample import draw_samples
from residualdroppath.experiments.network_report.targets import find_target, load_images, load_network
from residualdroppath.records.files import read_json
from residualdroppath.records.tensors import read_described, write_weights
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.trainer import Trainer
from training.pretrained_of_timm import NAME, pretend_hub
from training.tiny_runs import tiny

from .conftest import TINY


def test_the_record_holds_every_measure_of_both_networks(pair: Analysis) -> None:
    record = pair.record
    json.dumps(record, allow_nan=False)
    assert [network["title"] for network in record["networks"]] == ["plain, seed 0", "residual_drop_path, seed 0"]
    for network in record["networks"]:
        measures = network["measures"]
        assert set(measures) == {"answers", *MEASURES} and network["skipped"] == {}
        assert len(network["branches"]) == 6 and len(network["layers"]) == 7
        assert np.shape(measures["cka"]["streams"]) == (7, 7) and np.shape(measures["cka"]["branches"]) == (6, 6)
        assert np.allclose(np.diag(measures["cka"]["streams"]), 1)
        assert len(measures["probes"]["bits"]) == 7 and len(measures["streams"]["cosine"]) == 6
        assert 0 <= min(measures["probes"]["accuracy"]) and max(measures["probes"]["accuracy"]) <= 1
        earlier = measures["reconstruction"]["earlier"]
        assert all((earlier[row][k] is not None) == (k < row) for row in range(7) for k in range(7))
        assert [each["size"] for each in measures["deletion"]["sets"]] == [2, 3, 4, 6]
        assert measures["reordering"]["groups"] == [["blocks.0", "blocks.1"]]
        assert set(measures["reordering"]["random"]["tau"]) == {-1.0}
    assert record["peak_memory_bytes"] > 100 * 2**20 and record["environment"]["versions"]["torch"]
    assert len(pair.unit_maps) == 2 and [len(maps) for maps in pair.unit_maps] == [7, 7]
    assert all(np.allclose(np.diag(each)[each.any(0)], 1) and each.max() <= 1 for each in pair.unit_maps[0])


def test_accuracy_and_deletion_are_those_of_the_network(pair: Analysis, runs: dict[str, Path]) -> None:
    config = AnalyzeConfig(target=str(runs["plain"]), **TINY)
    target = find_target(config.target, config)
    data = load_images([target], config)
    network = load_network(target, config, data, torch.device("cpu"))
    sample = draw_samples(data, config)[0]
    images, labels = (torch.cat(each) for each in zip(*sample.batches(network, torch.device("cpu")), strict=True))
    model: Any = network.model
    measures = pair.record["networks"][0]["measures"]
    with torch.no_grad():
        right = model(images).argmax(1) == labels
        assert measures["answers"]["accuracy"] == pytest.approx(float(right.float().mean()), abs=1e-5)
        deletion = measures["deletion"]
        assert deletion["whole"]["accuracy"] == pytest.approx(float(right[:32].float().mean()), abs=1e-5)
        torch.nn.init.zeros_(model.blocks[1].bn2.weight)  # its branch now adds nothing
        torch.nn.init.zeros_(model.blocks[1].bn2.bias)
        without = (model(images[:32]).argmax(1) == labels[:32]).float().mean()
        assert deletion["single"]["accuracy"][1] == pytest.approx(float(without), abs=1e-5)


def test_samples_are_held_out_images_in_a_seeded_order(runs: dict[str, Path]) -> None:
    config = AnalyzeConfig(target=str(runs["plain"]), **TINY)
    data = load_images([find_target(config.target, config)], config)
    held_out, training = draw_samples(data, config)
    assert held_out.split is data.validation and training.split is data.train and len(held_out) == 64
    assert len(set(held_out.index.tolist())) == 64
    assert torch.equal(held_out.index, draw_samples(data, config)[0].index)
    other = draw_samples(data, config.model_copy(update={"seed": 1, "part": "test"}))[0]
    assert other.split is data.test and not torch.equal(other.index, held_out.index)
    assert [len(part) for part in draw_samples(data, config.model_copy(update={"samples": 67}))[0]] == [67]


@pytest.mark.parametrize("part", ["validation", "train"])
def test_too_few_images_are_named(runs: dict[str, Path], part: str) -> None:
    config = AnalyzeConfig(target=str(runs["plain"]), **TINY)
    data = load_images([find_target(config.target, config)], config)
    few = dataclasses.replace(data, **{part: data.validation.subset(torch.arange(31))})
    with pytest.raises(
        UserError, match=f"`data` must have at least 32 images to measure on, got 31 in the {part} part"
    ):
        draw_samples(few, config)
    if part == "train":  # what nothing is fitted on needs none
        assert len(draw_samples(few, config.model_copy(update={"measures": ("streams",)}))[1]) == 31


def test_random_weights_have_no_accuracy_and_say_so(single: Analysis) -> None:
    network = single.record["networks"][0]
    assert set(network["measures"]) == {"answers", "deletion", "streams", "relations"}
    assert "random" in network["skipped"]["accuracy"] and network["scalars"]["accuracy"] is None
    assert network["measures"]["deletion"]["whole"]["accuracy"] is None
    assert all(0 <= kept <= 1 for kept in network["measures"]["deletion"]["single"]["kept"])


def test_the_same_seed_gives_the_same_numbers(single: Analysis) -> None:
    config = AnalyzeConfig(**single.record["config"])
    again = analyze(config).record["networks"][0]
    assert again["measures"] == single.record["networks"][0]["measures"]
    other = analyze(config.model_copy(update={"seed": 1})).record["networks"][0]
    assert other["measures"] != again["measures"]


def test_a_file_of_weights_is_the_network_it_came_from(runs: dict[str, Path], pair: Analysis) -> None:
    options: dict[str, Any] = {**TINY, "model": "small_resnet", "depth": 14, "width": 4, "measures": ("streams",)}
    record = analyze(AnalyzeConfig(target=str(runs["plain"] / "model.safetensors"), **options)).record
    assert record["networks"][0]["kind"] == "file" and record["networks"][0]["measures"]["answers"]["accuracy"] >= 0
    other = analyze(AnalyzeConfig(target=str(runs["plain"] / "model.safetensors"), **options, data="digits")).record
    assert other["networks"][0]["measures"] == record["networks"][0]["measures"]
    assert read_json(runs["plain"] / "result.json")["parameters"] == record["networks"][0]["parameters"]


def test_resized_images_of_one_channel_for_a_network_of_three() -> None:
    options: dict[str, Any] = {**TINY, "samples": 32, "image_size": 32, "measures": ("streams", "reordering")}
    record = analyze(AnalyzeConfig(target="torchvision/resnet18", num_classes=7, **options)).record
    network = record["networks"][0]
    assert network["image_size"] == 32 and len(network["branches"]) == 8
    assert network["measures"]["reordering"]["groups"] == [["layer1.0", "layer1.1"]]


def test_sizes_orders_and_values() -> None:
    assert set_sizes(1) == [] and set_sizes(9) == [2, 3, 4, 6, 9] and set_sizes(2) == [2]
    assert swapped(4, 1) == [0, 2, 1, 3]
    orders = random_orders([3, 2], 5, seed=0)
    assert len(orders) == 5 and [[0, 1, 2], [0, 1]] not in orders and len({str(order) for order in orders}) == 5
    assert random_orders([2], 5, seed=0) == [[[1, 0]]]
    value = plain_values({"a": np.array([1.0, np.nan]), "b": (np.float64(1 / 3), np.int64(2)), "c": "text"})
    assert value == {"a": [1.0, None], "b": [0.333333, 2], "c": "text"}


def test_runs_that_do_not_share_their_images_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    text = (runs["plain"] / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("split_seed: 0", "split_seed: 3"))
    config = AnalyzeConfig(target=str(runs["plain"]), compare=str(other), **TINY)
    with pytest.raises(UserError, match=r"split_seed \(0 and 3\)"):
        analyze(config)


def test_a_fine_tuned_run_is_given_images_as_in_its_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the size, colours and scale of the pretrained weights, which are not looked for again."""
    recipe = tiny(model=NAME, pretrained=True, image_size=32, epochs=1, method="plain")
    with monkeypatch.context() as patch:
        pretend_hub(patch)
        train(recipe, tmp_path / "run")
        trainer = Trainer(recipe, load_config_data(recipe))
    config = AnalyzeConfig(target=str(tmp_path / "run"), **TINY)
    target = find_target(config.target, config)
    data = load_images([target], config)
    network = load_network(target, config, data, torch.device("cpu"))
    sample = draw_samples(data, config)[0].first(8)
    images, labels = next(iter(sample.batches(network, torch.device("cpu"))))
    pixels, expected = next(iter(sample.split.batches([sample.index])))
    assert torch.equal(images, trainer.prepare(pixels)) and torch.equal(labels, expected) and images.shape[1] == 3


def test_a_file_of_a_run_says_what_it_is_of(runs: dict[str, Path], tmp_path: Path) -> None:
    config = AnalyzeConfig(target=str(runs["plain"] / "model.safetensors"), **TINY)
    file, run = (find_target(name, config) for name in (config.target, str(runs["plain"])))
    assert file.recipe is not None and file.recipe.depth == run.recipe.depth  # pyright: ignore[reportOptionalMemberAccess]
    data = load_images([file], config)
    of_file, of_run = (load_network(each, config, data, torch.device("cpu")) for each in (file, run))
    images = torch.randn(2, of_run.channels, of_run.image_size, of_run.image_size)
    assert torch.equal(of_file.model(images), of_run.model(images)) and of_file.statistics == of_run.statistics
    state, about = read_described(runs["plain"] / "model.safetensors")
    write_weights(tmp_path / "pruned.safetensors", state, {**(about or {}), "pruned": ["blocks.0"]})
    with pytest.raises(UserError, match="is of a pruned network, which is not analysed"):
        find_target(str(tmp_path / "pruned.safetensors"), config)
    write_weights(tmp_path / "bare.safetensors", state)
    with pytest.raises(UserError, match="`model` must say which network .*bare.safetensors holds"):
        find_target(str(tmp_path / "bare.safetensors"), config)
