"""One run: what it tests, when it gives up, and what it shows."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from residualdroppath.data.images import Split
from residualdroppath.errors import UserError
from residualdroppath.models.small_resnet import SmallResNet
from residualdroppath.training.evaluation import Scores
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.runtime import derived_seed
from residualdroppath.training.trainer import Trainer

from .tiny_runs import contents, manifests, metrics, tiny


def test_test_set_is_used_once_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(epochs=3)
    data = load_config_data(config)
    used: list[str] = []
    parts = {id(data.validation): "validation", id(data.test): "test", id(data.train): "train"}
    evaluate = Trainer.evaluate

    def noted(self: Trainer, split: Split, *model: nn.Module) -> Scores:
        used.append(parts[id(split)])
        return evaluate(self, split, *model)

    monkeypatch.setattr(Trainer, "evaluate", noted)
    train(config, tmp_path / "run", data=data)
    assert used == ["validation"] * 3 + ["test"]
    train(config, tmp_path / "run", data=data, resume=True)
    assert used == ["validation"] * 3 + ["test"]


def test_network_of_torchvision_is_given_grey_images_as_colours(tmp_path: Path) -> None:
    config = tiny(epochs=1, model="torchvision/resnet18")
    data = load_config_data(config)
    trainer = Trainer(config, data)
    images, _ = next(iter(data.test.batches([torch.arange(8)])))
    ready = trainer.prepare(images)
    assert ready.shape == (8, 3, 8, 8) and all(torch.equal(ready[:, 0], channel) for channel in ready.unbind(1))
    result = train(config, tmp_path, data=data)
    assert result["iterations"] == 3 and "conv1.weight" in load_file(tmp_path / "model.safetensors")


def test_result_is_that_of_the_kept_weights(tmp_path: Path) -> None:
    config = tiny(epochs=3, width=4)
    data = load_config_data(config)
    result = train(config, tmp_path, data=data)
    model = SmallResNet(8, 4, in_channels=1)
    model.load_state_dict(load_file(tmp_path / "model.safetensors"))
    trainer = Trainer(config, data)
    images, labels = next(iter(data.test.batches([torch.arange(len(data.test))])))
    with torch.no_grad():
        logits = model.eval()(trainer.prepare(images))
    assert result["test_accuracy"] == pytest.approx((logits.argmax(1) == labels).double().mean().item(), abs=1e-9)
    assert result["test_loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
    assert result["parameters"] == sum(p.numel() for p in model.parameters())
    assert result["iterations"] == 9 and result["train_images"] == 96
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_rate_0_is_plain_training(tmp_path: Path) -> None:
    train(tiny(method="plain"), tmp_path / "plain")
    train(tiny(method="residual_drop_path", drop_path_rate=0), tmp_path / "zero")
    plain, zero = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "zero"))
    assert plain.keys() == zero.keys() and all(torch.equal(plain[name], zero[name]) for name in plain)


def test_learning_happens(tmp_path: Path) -> None:
    result = train(tiny(width=4, train_size=640, epochs=6, method="plain"), tmp_path)
    assert result["test_accuracy"] > 0.5  # chance is 0.1
    rows = metrics(tmp_path)
    assert [row["epoch"] for row in rows] == list(range(1, 7))
    assert [row["iteration"] for row in rows] == list(range(20, 121, 20))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_learning_rate_rises_then_falls_to_0() -> None:
    config = tiny(epochs=10, warmup=0.2, lr=0.3)
    trainer = Trainer(config, load_config_data(config))
    rates = []
    for iteration in range(trainer.total_iterations):
        trainer.iteration = iteration
        rates.append(trainer.lr)
    peak = rates.index(max(rates))
    assert 0.28 < rates[peak] <= 0.3 and peak in (5, 6)
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[0] <= 0.3 / 6 and 0 < rates[-1] < 0.005


def test_every_epoch_takes_each_image_once_in_an_order_of_its_own() -> None:
    config = tiny(crop_padding=0)
    trainer = Trainer(config, load_config_data(config))
    every = trainer.prepare(next(iter(trainer.data.train.batches([torch.arange(96)])))[0]).view(96, -1)
    orders = []
    for epoch in (1, 2, 1):
        images = torch.cat([batch.view(len(batch), -1) for batch, _ in trainer.batches(epoch)])
        orders.append([int((every == image).all(1).nonzero()[0]) for image in images])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(96))
    assert orders[0] == orders[2] and orders[0] != orders[1]


def test_seeds_of_purposes_differ() -> None:
    seeds = {derived_seed(seed, f"epoch {epoch}") for seed in range(20) for epoch in range(20)}
    assert len(seeds) == 400


def test_loss_that_diverges_keeps_the_epoch_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iteration = Trainer.train_iteration

    def diverging(self: Trainer, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, correct = iteration(self, images, labels)
        return (loss * math.nan if self.iteration == 5 else loss), correct

    monkeypatch.setattr(Trainer, "train_iteration", diverging)
    with pytest.raises(UserError, match=r"no longer finite \(epoch 2, by iteration 5\).*`lr`") as error:
        train(tiny(), tmp_path)
    assert "\n" not in str(error.value)
    assert manifests(tmp_path) == [3]
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("batch_size", [32, 96])
def test_learning_rate_far_too_large_is_an_error(tmp_path: Path, batch_size: int) -> None:
    """Also where the only update's own loss was still finite."""
    with pytest.raises(UserError, match="no longer finite"):
        train(tiny(lr=1e30, batch_size=batch_size, epochs=1), tmp_path)
    assert not list(tmp_path.glob("checkpoints/*")) and not (tmp_path / "result.json").exists()


def test_mistakes_found_at_the_start_leave_no_folder(tmp_path: Path) -> None:
    for wrong in ({"batch_size": 97}, {"model": "resnet999"}, {"depth": 9}, {"device": "cuda:99"}, {"data": "nope"}):
        with pytest.raises(UserError):
            train(tiny(**wrong), tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", [pytest.param("vit_tiny_patch16_224", marks=pytest.mark.full), "convnext_atto"])
def test_timm_models_train(tmp_path: Path, model: str) -> None:
    config = tiny(model=model, epochs=1, image_size=32, train_size=20, batch_size=10, drop_path_rate=0.5)
    result = train(config, tmp_path)
    assert result["iterations"] == 2 and math.isfinite(result["test_loss"])


class _Page(HTMLParser):
    """Cells by row, sources of images, and whether every tag that opens closes."""

    def __init__(self, text: str):
        super().__init__()
        self.rows: list[list[str]] = []
        self.images: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")
        elif tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_page_has_table_and_curves(tmp_path: Path) -> None:
    config = tiny(epochs=3)
    train(config, tmp_path)
    page = _Page((tmp_path / "index.html").read_text())
    assert page.open == []
    rows = {row[0]: row[1:] for row in page.rows}
    for row in metrics(tmp_path):
        cells = rows[str(row["epoch"])]
        assert cells[0] == f"{row['train_loss']:.4f}" and cells[3] == f"{100 * row['validation_accuracy']:.2f} %"
    assert rows["width"] == ["2"] and rows["method"] == ["residual_drop_path"]
    assert len(page.images) == 1 and page.images[0].startswith("data:image/png;base64,")
    assert not [src for src in page.images if src.startswith("http")]


def test_curves_are_drawn(tmp_path: Path) -> None:
    train(tiny(epochs=3), tmp_path)
    with Image.open(tmp_path / "curves.png") as opened:
        pixels = np.asarray(opened.convert("RGB"))
    assert pixels.shape[0] > 300 and pixels.shape[1] > 800
    blue = (pixels == [0x0B, 0x6F, 0xB8]).all(2)  # the method's colour, in both halves
    half = pixels.shape[1] // 2
    assert blue[:, :half].sum() > 200 and blue[:, half:].sum() > 200


def test_names_are_escaped_in_the_page(tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = tiny(epochs=1, label_column="<script>alert(1)</script>")
    train(config, out)
    assert "<script>" not in (out / "index.html").read_text() and "&lt;script&gt;" in (out / "index.html").read_text()


def test_folder_holds_what_is_promised_and_no_left_overs(tmp_path: Path) -> None:
    train(tiny(epochs=1), tmp_path)
    assert contents(tmp_path).keys() - {".lock"} == {
        "config.yaml", "environment.json", "metrics.jsonl", "log.csv", "curves.png", "index.html", "model.safetensors",
        "result.json", "data.json", "checkpoints/iteration_00000003.json",
        "checkpoints/iteration_00000003.safetensors", "checkpoints/iteration_00000003.state.pt",
    }  # fmt: skip
