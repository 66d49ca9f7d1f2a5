"""Exported networks give the network's logits for any batch size, and say what they take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from residualdroppath.errors import UserError
from residualdroppath.inference import export as export_module
from residualdroppath.inference.evaluation import evaluate
from residualdroppath.inference.export import Format, export, input_line
from residualdroppath.inference.labelled import own_images
from residualdroppath.inference.least_missed import least_missed
from residualdroppath.inference.network import TrainedNetwork, load_network, without_branches
from residualdroppath.models.find import find_model
from residualdroppath.records.tensors import KEY
from residualdroppath.training.run import train
from training.tiny_runs import tiny

PIXELS = torch.randint(0, 256, (7, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def loaded(path: Path, format: Format) -> Any:
    """By the library's own loader: a function of a batch."""
    if format == "torch-export":
        return torch.export.load(path).module()
    if format == "safetensors":
        return load_network(path, "cpu").model
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    onnx.checker.check_model(onnx.load(path), full_check=True)
    session: Any = ReferenceEvaluator(str(path))
    return lambda images: torch.as_tensor(session.run(None, {"images": images.numpy()})[0])


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("format", get_args(Format))
def test_logits(digits: Path, tmp_path: Path, format: Format, pruned: bool) -> None:
    network = load_network(digits, "cpu")
    if pruned:
        network = without_branches(network, ("blocks.1",))
    path = tmp_path / f"x.{format}"
    assert export(network, format, path) <= 1e-5
    run = loaded(path, format)
    for rows in (1, 7):
        assert torch.allclose(run(network.prepare(PIXELS[:rows])), network.logits(PIXELS[:rows]), atol=1e-5)
    assert input_line(network, with_normalisation=False).startswith(
        "input: images, float32[batch, 1, 8, 8], (pixels 0 to 255 - mean 7"
    )


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_normalisation_in_the_graph(digits: Path, tmp_path: Path, format: Format) -> None:
    network = load_network(digits, "cpu")
    export(network, format, tmp_path / "x", with_normalisation=True)
    assert torch.allclose(loaded(tmp_path / "x", format)(PIXELS.float()), network.logits(PIXELS), atol=1e-5)
    assert input_line(network, with_normalisation=True).endswith("float32[batch, 1, 8, 8], pixels 0 to 255")


def test_what_goes_with_the_graph(digits: Path, tmp_path: Path) -> None:
    network = load_network(digits, "cpu")
    export(network, "torch-export", tmp_path / "x.pt2")
    files = {f"{KEY}.json": ""}
    torch.export.load(tmp_path / "x.pt2", extra_files=files)
    notes = [json.loads(files[f"{KEY}.json"])]
    onnx = pytest.importorskip("onnx")
    export(network, "onnx", tmp_path / "x.onnx")
    model = onnx.load(tmp_path / "x.onnx")
    properties = {each.key: each.value for each in model.metadata_props}
    notes.append(json.loads(properties[KEY]))
    assert json.loads(properties["classes"]) == list("0123456789")
    for note in notes:
        assert note == {**network.about.plain(), "normalisation_included": False}


def test_grey_images_of_a_network_of_colour(tmp_path: Path) -> None:
    """Its hook, which takes logits out of what torchvision returns, is part of the graph."""
    train(tiny(epochs=1, model="torchvision/resnet18", method="plain"), tmp_path / "run")
    network = load_network(tmp_path / "run", "cpu")
    export(network, "torch-export", tmp_path / "x", with_normalisation=True)
    run = loaded(tmp_path / "x", "torch-export")
    assert torch.allclose(run(PIXELS.float()), network.logits(PIXELS), atol=1e-4)
    assert input_line(network, with_normalisation=False).endswith("grey images repeated")


def test_a_pruned_file_is_a_network_like_any_other(digits: Path, tmp_path: Path) -> None:
    network = without_branches(load_network(digits, "cpu"), ("blocks.2",))
    export(network, "safetensors", tmp_path / "x.safetensors")
    again = load_network(tmp_path / "x.safetensors", "cpu")
    assert again.about.pruned == ("blocks.2",) and torch.equal(again.logits(PIXELS), network.logits(PIXELS))
    smaller = without_branches(again, ("blocks.0",))
    assert smaller.about.pruned == ("blocks.2", "blocks.0")


@pytest.mark.parametrize("wrong", ["values", "shape", "nan"])
def test_another_result_is_refused_and_leaves_nothing(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    network = load_network(digits, "cpu")
    runs = {
        "values": lambda images: network.model(images) + 0.01,
        "shape": lambda images: network.model(images)[:1],
        "nan": lambda images: network.model(images) * float("nan"),
    }
    monkeypatch.setitem(export_module.WRITERS, "onnx", lambda *args: runs[wrong])
    with pytest.raises(UserError, match="gives other logits"):
        export(network, "onnx", tmp_path / "x.onnx")
    monkeypatch.setitem(export_module.WRITERS, "onnx", lambda *args: 1 / 0)
    with pytest.raises(UserError, match="cannot be exported as onnx for any batch size .division by zero"):
        export(network, "onnx", tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_least_missed(digits: Path) -> None:
    """As trying all of them, pruned, would have it; and the network is as it was."""
    network = load_network(digits, "cpu")
    split = own_images(network, "validation").split

    def loss(*names: str) -> float:
        return evaluate(without_branches(network, names), split, 64)["loss"]

    names = [f"blocks.{number}" for number in range(3)]
    before = evaluate(network, split, 64)
    found = least_missed(network, split, 2, 64)
    first = min(names, key=lambda name: loss(name))
    second = min((name for name in names if name != first), key=lambda name: loss(first, name))
    assert [name for name, _ in found] == [first, second]
    assert [each for _, each in found] == pytest.approx([loss(first), loss(first, second)], rel=1e-5)
    assert evaluate(network, split, 64) == before
    with pytest.raises(UserError, match=r"`prune_branches` must be in \[1, 2\] of 3 branches, got 3"):
        least_missed(network, split, 3, 64)


@pytest.mark.full
@pytest.mark.parametrize(
    "model", ["vit_tiny_patch16_224", "convnext_atto", "transformers/ResNetForImageClassification"]
)
@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_networks_of_libraries(tmp_path: Path, model: str, format: Format) -> None:
    pytest.importorskip("onnx")
    train(tiny(epochs=1, model=model, method="plain", image_size=32, train_size=32), tmp_path / "run")
    network = load_network(tmp_path / "run", "cpu")
    assert isinstance(network, TrainedNetwork) and find_model(model)
    export(network, format, tmp_path / "x")
