"""Weights that a training starts from: where they come from, what is loaded, and what a run remembers of them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from residualdroppath.errors import UserError
from residualdroppath.models.small_resnet import SmallResNet
from residualdroppath.training.preview import preview
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.trainer import Trainer

from .pretrained_of_timm import NAME, pretend_hub
from .tiny_runs import contents, tiny


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on five of the ten digits."""
    out = tmp_path_factory.mktemp("first") / "run"
    train(tiny(num_classes=5, train_size=64, epochs=1, crop_padding=0), out)
    return out


def trainer_of(**options: Any) -> Trainer:
    config = tiny(**options)
    return Trainer(config, load_config_data(config))


def refused(**options: Any) -> str:
    with pytest.raises(UserError) as error:
        trainer_of(**options)
    assert "\n" not in str(error.value)
    return str(error.value)


def own_state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return SmallResNet(8, 2, in_channels=1).state_dict()


def test_a_run_is_the_start_of_another_with_more_classes(first: Path) -> None:
    trainer = trainer_of(weights=first)
    before = load_file(first / "model.safetensors")
    state, random = trainer.model.state_dict(), trainer_of().model.state_dict()
    for name, value in state.items():
        assert torch.equal(value, random[name] if name.startswith("head.") else before[name]), name
    loaded = len(state) - 2
    assert trainer.made.weights_line == (
        f"weights of {first}: {loaded} of {len(state)} tensors loaded; "
        "new: head.weight [10, 8] (there [5, 8]), head.bias [10] (there [5])"
    )


def test_normalisation_and_size_come_with_the_weights(first: Path) -> None:
    """Also for other images: here of other brightness, and of another size by default."""
    other = trainer_of(weights=first, num_classes=3, train_size=48)
    assert other.made.statistics == ([*other.made.start.mean], [*other.made.start.deviation])  # pyright: ignore
    assert other.made.statistics != trainer_of(num_classes=3, train_size=48).made.statistics
    config = tiny(weights=first, image_size=16)
    larger = Trainer(config, load_config_data(config))
    assert larger.data.image_size == 16
    assert "image size: 16x16, the weights had 8x8" in preview(larger)
    assert "image size: 8x8, that of the weights" in preview(other)
    assert any(line.startswith("normalisation: of the weights, mean / deviation 0.") for line in preview(other))


@pytest.mark.parametrize("kind", ["model", "state_dict", "state_dict_ema", "plain", "wrapped", "safetensors"])
def test_files_of_others(tmp_path: Path, kind: str) -> None:
    state = own_state()
    path = tmp_path / "weights.pth"
    if kind == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
    elif kind == "plain":
        torch.save(state, path)
    elif kind == "wrapped":
        torch.save({"model": {f"module._orig_mod.{name}": value for name, value in state.items()}, "epoch": 3}, path)
    else:
        torch.save({kind: state, "epoch": 3, **({"state_dict": {}} if kind == "state_dict_ema" else {})}, path)
    trainer = trainer_of(weights=path)
    assert all(torch.equal(value, state[name]) for name, value in trainer.model.state_dict().items())
    assert "new:" not in trainer.made.weights_line and "without a place" not in trainer.made.weights_line
    assert any("the weights come with none that fits" in line for line in preview(trainer))


class _Trap:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "weights.pth"
    torch.save({"state_dict": own_state(), "more": _Trap(sprung)}, path)
    assert "cannot be read without running code from it" in refused(weights=path)
    path.write_bytes(pickle.dumps(_Trap(sprung)))
    assert "cannot be read without running code from it" in refused(weights=path)
    assert not sprung.exists()
    pickle.loads(path.read_bytes())
    assert sprung.exists(), "the trap itself does not work"


def test_what_does_not_fit_is_an_error(tmp_path: Path) -> None:
    """Scalars and biases of the same shape do not make it fit."""
    torch.save(SmallResNet(8, 3, in_channels=1).state_dict(), tmp_path / "wider.pth")
    assert "nothing of" in refused(weights=tmp_path / "wider.pth")
    torch.save({"head.bias": torch.zeros(10), "stem.1.num_batches_tracked": torch.tensor(3)}, tmp_path / "bias.pth")
    assert "nothing of" in refused(weights=tmp_path / "bias.pth")
    torch.save({"a": torch.zeros(2), "b": 3}, tmp_path / "numbers.pth")
    assert "holds no state dict" in refused(weights=tmp_path / "numbers.pth")
    (tmp_path / "weights.npz").write_bytes(b"x")
    assert "must be a run folder, a .safetensors file or a .pth" in refused(weights=tmp_path / "weights.npz")
    assert "is not there" in refused(weights=tmp_path / "nothing.pth")
    (tmp_path / "folder").mkdir()
    assert "is not the folder of a run" in refused(weights=tmp_path / "folder")
    with pytest.raises(ValueError, match="`pretrained` and `weights` both"):
        TrainConfig(pretrained=True, weights=tmp_path)


def test_a_layer_is_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    state = own_state()
    state["stem.1.weight"] = torch.zeros(7)
    state["teacher"] = torch.zeros(7)
    torch.save(state, tmp_path / "odd.pth")
    trainer = trainer_of(weights=tmp_path / "odd.pth")
    fresh = trainer_of().model.state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(trainer.model.state_dict()[f"stem.1.{name}"], fresh[f"stem.1.{name}"])
    assert torch.equal(trainer.model.state_dict()["stem.0.weight"], state["stem.0.weight"])
    assert (
        "new: stem.1.weight [2] (there [7]), stem.1.bias, stem.1.running_mean and 2 more" in trainer.made.weights_line
    )
    assert trainer.made.weights_line.endswith("; without a place here: teacher")


def test_a_run_remembers_its_start_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    torch.save(own_state(), path)
    config = tiny(weights=path, epochs=1)
    result = train(config, tmp_path / "run")
    assert train(config, tmp_path / "run", resume=True) == result
    other = own_state()
    other["stem.0.weight"] += 1
    torch.save(other, path)
    before = contents(tmp_path / "run")
    with pytest.raises(UserError, match="keeps the weights that it started from"):
        train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before
    monkeypatch.chdir(tmp_path)
    assert tiny(weights=Path("weights.pth")).located().weights == path


def test_training_moves_away_from_the_start(first: Path, tmp_path: Path) -> None:
    train(tiny(weights=first, epochs=1), tmp_path / "run")
    again = trainer_of(weights=tmp_path / "run").model.state_dict()
    assert not torch.equal(again["stem.0.weight"], load_file(first / "model.safetensors")["stem.0.weight"])


PRETRAINED: dict[str, Any] = {"model": NAME, "pretrained": True, "method": "plain"}


def test_pretrained_weights_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    state = pretend_hub(monkeypatch)
    trainer = trainer_of(**PRETRAINED, image_size=32)
    own = trainer.model.state_dict()
    assert {
        name for name in own if not torch.equal(own[name], state[name]) or own[name].shape != state[name].shape
    } == {
        "fc.weight",
        "fc.bias",
    }
    assert trainer.made.weights_line.startswith(
        f"weights of {NAME}: {len(own) - 2} of {len(own)} tensors loaded; new: fc."
    )
    assert trainer.channels == 3 and trainer.data.channels == 1  # grey digits are repeated
    images, _ = next(iter(trainer.data.train.batches([torch.arange(4)])))
    ready = trainer.prepare(images)
    assert torch.allclose(ready, ((images / 255 - 0.5) / 0.5).expand(-1, 3, -1, -1), atol=1e-5)


def test_image_size_of_the_pretrained_weights_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_hub(monkeypatch)
    assert load_config_data(tiny(**PRETRAINED)).image_size == 160
    assert load_config_data(tiny(**PRETRAINED, image_size=32)).image_size == 32


def test_pretrained_without_a_tag_is_that_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_hub(monkeypatch)
    options = {**PRETRAINED, "model": f"timm/{NAME.partition('.')[0]}", "image_size": 32}
    assert f"weights of {NAME}:" in trainer_of(**options).made.weights_line


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("test_resnet.of_nobody", "known are test_resnet.r160_in1k"),
        ("resnet999", "check the name"),
        ("small_resnet", "goes with a timm name such as resnet18.a1_in1k"),
        ("torchvision/resnet18", "goes with a timm name such as resnet18.a1_in1k"),
    ],
)
def test_pretrained_weights_that_are_not_there(model: str, told: str) -> None:
    assert told in refused(**{**PRETRAINED, "model": model, "image_size": 32})


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.models import _builder

    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(_builder, "load_state_dict_from_hf", offline)
    assert "could not be loaded (no route to host); check the network" in refused(**PRETRAINED, image_size=32)
