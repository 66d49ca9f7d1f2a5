"""Tables and other programs' logs of a run, and its page while it goes on."""

from __future__ import annotations

import csv
import importlib.util
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath.errors import UserError
from residualdroppath.training import run, run_page
from residualdroppath.training.logs import to_csv
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.trainer import Trainer

from .tiny_runs import interrupted, metrics, tiny


def test_table_has_a_line_an_epoch(tmp_path: Path) -> None:
    train(tiny(epochs=3, validate_every=2, ema=0.5), tmp_path)
    with (tmp_path / "log.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = metrics(tmp_path)
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    for line, row in zip(lines, rows, strict=True):
        assert all(float(line[name]) == value for name, value in row.items())
    assert lines[0]["validation_loss"] == "" != lines[1]["validation_loss"]
    assert {"lr", "images_per_second", "validation_top5_accuracy", "ema_validation_accuracy"} <= lines[1].keys()


def test_table_of_nothing() -> None:
    assert to_csv([]).strip() == ""


def test_top5_is_that_of_the_five_likeliest() -> None:
    config = tiny()
    of = Trainer(config, load_config_data(config))
    found = of.evaluate(of.data.validation)
    model = of.model.eval()
    images, labels = next(iter(of.data.validation.batches([torch.arange(len(of.data.validation))])))
    order = model(of.prepare(images)).argsort(1, descending=True)
    assert found.accuracy == pytest.approx((order[:, 0] == labels).double().mean().item())
    assert found.top5_accuracy == pytest.approx((order[:, :5] == labels[:, None]).any(1).double().mean().item())


def test_top5_of_five_classes_says_nothing(tmp_path: Path) -> None:
    result = train(tiny(num_classes=5, train_size=64, epochs=1), tmp_path)
    assert not [name for name in [*result, *metrics(tmp_path)[0]] if "top5" in name]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_package_that_is_missing_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"pip install 'residualdroppath\[{name}\]'"):
        train(tiny(log=(name,)), tmp_path / "run", data=load_config_data(tiny()))
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_each_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a resume too, of a run that was ended after an epoch that was written."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # pyright: ignore[reportMissingImports]
        EventAccumulator,
    )

    config = tiny(epochs=3, log=("tensorboard",))
    train(config, tmp_path / "whole", on_epoch=lambda *epochs: None)
    interrupted(config, tmp_path / "cut", monkeypatch)
    train(config, tmp_path / "cut", resume=True, on_epoch=lambda *epochs: None)
    for out in (tmp_path / "whole", tmp_path / "cut"):
        written = EventAccumulator(str(out / "tensorboard"))
        written.Reload()
        assert {"train/loss", "validation/top5_accuracy", "lr"} <= set(written.Tags()["scalars"])
        values = {event.step: event.value for event in written.Scalars("validation/loss")}
        expected = {row["epoch"]: row["validation_loss"] for row in metrics(out)}
        assert values.keys() <= expected.keys() and {2, 3} <= values.keys()
        assert all(value == pytest.approx(expected[epoch], rel=1e-6) for epoch, value in values.items())


@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb: Any = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    written: list[dict[str, Any]] = []
    log = wandb.sdk.wandb_run.Run.log
    monkeypatch.setattr(
        wandb.sdk.wandb_run.Run, "log", lambda self, row, step: (written.append(row), log(self, row, step=step))
    )
    config = tiny(log=("wandb",))
    train(config, tmp_path / "run", on_epoch=lambda *epochs: None)
    assert [row["validation/accuracy"] for row in written] == [
        row["validation_accuracy"] for row in metrics(tmp_path / "run")
    ]
    identity = (tmp_path / "run/wandb-id.txt").read_text().strip()
    assert list((tmp_path / "run/wandb").glob(f"offline-run-*-{identity}"))


def test_logs_and_workers_may_change_when_a_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tiny(epochs=2), tmp_path, monkeypatch)
    monkeypatch.setattr(run, "require_packages", lambda config: None)
    monkeypatch.setattr(run, "opened_logs", lambda *_: nullcontext([]))
    assert train(tiny(epochs=2, log=("wandb",), workers=1), tmp_path, resume=True)["epochs"] == 2


def test_page_while_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(run_page, "PAGE_SECONDS", 0.0)
    evaluate = Trainer.evaluate

    def looking(self: Trainer, *split: Any) -> Any:
        if (tmp_path / "index.html").is_file():
            seen.append((tmp_path / "index.html").read_text())
        return evaluate(self, *split)

    monkeypatch.setattr(Trainer, "evaluate", looking)
    train(tiny(epochs=3, test=False), tmp_path)
    assert len(seen) == 2 and all('http-equiv="refresh" content="15"' in page for page in seen)
    assert "epoch 1 of 3" in seen[0] and "epoch 2 of 3" in seen[1]
    last = (tmp_path / "index.html").read_text()
    assert "refresh" not in last and "validation accuracy" in last


def test_page_is_not_drawn_more_often_than_it_is_worth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(run_page, "write_run_page", lambda *args: calls.append(args))
    train(tiny(epochs=3), tmp_path)
    assert not calls
