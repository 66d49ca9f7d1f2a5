"""Networks are loaded with all that goes with them, and only whole ones."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from residualdroppath.errors import UserError
from residualdroppath.inference.network import load_network, without_branches
from residualdroppath.records.tensors import KEY, read_described, write_weights
from residualdroppath.training.recipe import TrainConfig, read_config
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.trainer import Trainer
from training.pretrained_of_timm import NAME, pretend_hub
from training.tiny_runs import interrupted, tiny


def trainer_of(run: Path) -> Trainer:
    """The network of a run as the trainer has it, and its data."""
    config = read_config(TrainConfig, run / "config.yaml")
    trainer = Trainer(config, load_config_data(config))
    trainer.model.load_state_dict(load_file(run / "model.safetensors"))
    return trainer


def require_same(run: Path, target: Path) -> None:
    trainer = trainer_of(run)
    images, _ = next(iter(trainer.data.test.batches([torch.arange(6)])))
    with torch.no_grad():
        expected = trainer.model.eval()(trainer.prepare(images))
    assert torch.equal(load_network(target, "cpu").logits(images), expected)


def older(run: Path, out: Path) -> Path:
    """The run as a version before wrote it: weights without metadata."""
    copytree(run, out)
    for path in out.rglob("*.safetensors"):
        save_file(load_file(path), path)
    result = json.loads((out / "result.json").read_text())
    del result["model_sha256"]
    (out / "result.json").write_text(json.dumps(result))
    return out


@pytest.mark.parametrize("name", ["digits", "squares"])
def test_a_network_is_that_of_its_run(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found: Path = request.getfixturevalue(name)
    run = found if name == "digits" else found / "run"
    moved = tmp_path / "x.safetensors"
    moved.write_bytes((run / "model.safetensors").read_bytes())
    checkpoint = sorted((run / "checkpoints").glob("*.safetensors"))[-1]
    for target in (run, run / "model.safetensors", moved, checkpoint, older(run, tmp_path / "older")):
        require_same(run, target)


def test_what_is_known_of_it(digits: Path, squares: Path) -> None:
    about = load_network(digits).about
    assert about.classes == tuple("0123456789") and (about.model, about.depth, about.width) == ("small_resnet", 8, 8)
    assert (about.image_channels, about.channels, about.image_size, len(about.mean)) == (1, 1, 8, 1)
    assert load_network(digits).recipe == tiny(width=8, train_size=640, epochs=3, method="plain")
    assert about.data == json.loads((digits / "data.json").read_text())
    assert load_network(squares / "run").about.classes == ("blue", "green", "red")


def test_a_torchvision_network_and_grey_images(tmp_path: Path) -> None:
    train(tiny(epochs=1, model="torchvision/resnet18", method="plain"), tmp_path / "run")
    require_same(tmp_path / "run", tmp_path / "run")


def test_a_network_that_started_from_pretrained_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is loaded without them, and normalises as they do."""
    with monkeypatch.context() as patch:
        pretend_hub(patch)
        train(tiny(model=NAME, pretrained=True, image_size=32, epochs=1, method="plain"), tmp_path / "run")
        trainer = trainer_of(tmp_path / "run")
    network = load_network(tmp_path / "run")
    images, _ = next(iter(trainer.data.test.batches([torch.arange(6)])))
    assert torch.equal(network.prepare(images), trainer.prepare(images))
    assert network.about.channels == 3 and network.about.mean == (127.5,) * 3 and network.about.image_channels == 1
    assert torch.equal(network.logits(images), trainer.model.eval()(trainer.prepare(images)))


@pytest.mark.parametrize("place", ["weights", "metadata"])
def test_any_change_is_found(digits: Path, tmp_path: Path, place: str) -> None:
    content = (digits / "model.safetensors").read_bytes()
    position = len(content) - 1 if place == "weights" else content.index(b"small_resnet")
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    with pytest.raises(UserError, match="is damaged: it is not what was written") as error:
        load_network(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sha256": 1}', "[" * 100_000])
def test_metadata_of_another_kind(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", {KEY: text})
    with pytest.raises(UserError, match="is damaged"):
        load_network(tmp_path / "x.safetensors")


def test_whole_files_that_say_too_little(digits: Path, tmp_path: Path) -> None:
    weights, about = read_described(digits / "model.safetensors")
    assert about is not None
    write_weights(tmp_path / "x.safetensors", weights, {**about, "classes": None})
    with pytest.raises(UserError, match="is not complete .classes: "):
        load_network(tmp_path / "x.safetensors")
    write_weights(tmp_path / "x.safetensors", weights, {**about, "format": 99})
    with pytest.raises(UserError, match="by a later version"):
        load_network(tmp_path / "x.safetensors")
    write_weights(tmp_path / "x.safetensors", weights)
    with pytest.raises(UserError, match="does not say what network"):
        load_network(tmp_path / "x.safetensors")
    write_weights(tmp_path / "x.safetensors", weights, {**about, "width": 4})
    with pytest.raises(UserError, match="do not fit small_resnet"):
        load_network(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is not there"):
        load_network(tmp_path / "nothing")
    with pytest.raises(UserError, match="is not the folder of a run"):
        load_network(tmp_path)


def test_a_run_that_has_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = interrupted(tiny(), tmp_path / "run", monkeypatch)
    network = load_network(run)
    assert network.file.parent == run / "checkpoints"
    content = network.file.read_bytes()
    network.file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="holds no weights yet"):
        load_network(run)


def test_metadata_have_one_entry(digits: Path) -> None:
    """Several would come in any order, and equal runs would differ in their bytes."""
    with safe_open(digits / "model.safetensors", "pt") as file:
        assert list(file.metadata()) == [KEY]


def test_pruned(digits: Path) -> None:
    network = load_network(digits, "cpu")
    small = without_branches(network, ("blocks.0",))
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    assert small.about.pruned == ("blocks.0",)
    assert not torch.equal(small.logits(images), network.logits(images))
    assert sum(p.numel() for p in small.model.parameters()) < sum(p.numel() for p in network.model.parameters())
    with pytest.raises(UserError, match="`prune` must be names of residual branches of the model, blocks.0, blocks.1"):
        without_branches(network, ("blocks.9",))
