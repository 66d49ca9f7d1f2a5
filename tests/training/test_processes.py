"""Two processes train as one does on the same batches, and the launchers start them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing, nn

from residualdroppath.errors import Stopped, UserError
from residualdroppath.models.classifier import Classifier
from residualdroppath.models.small_resnet import SmallResNet
from residualdroppath.training import run, trainer
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.saving import SavingTimes
from residualdroppath.training.trainer import Trainer

from .tiny_runs import metrics, tiny

# Batches of 30: an odd number of rows, in parts of 7 and 8.
METHOD: dict[str, Any] = {"drop_path_rate": 0.5, "batch_size": 30, "mirror": True, "crop_padding": 1}
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {**METHOD, "method": "plain"},
    "parameters": METHOD,
    "stop_gradient": {**METHOD, "freeze": "stop_gradient"},
    "sample": {**METHOD, "freeze": "stop_gradient", "granularity": "sample"},
    "union, clipped": {**METHOD, "schedule": (4, 1), "trains": "union", "clip_grad": 0.05},
    "accumulation": {**METHOD, "accumulation": 2},
    "cycle on one batch, adamw": {**METHOD, "cycle": "same_batch", "optimizer": "adamw", "lr": 0.01, "batch_size": 31},
}


def without_batch_norm(*args: Any, **kwargs: Any) -> Classifier:
    """In float64; its norms see a row each."""
    model = SmallResNet(8, 4, in_channels=1).double()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            model.set_submodule(name, nn.GroupNorm(2, module.num_features, dtype=torch.float64))
    return Classifier(model, 1)


def with_dropout(*args: Any, **kwargs: Any) -> Classifier:
    model = SmallResNet(8, 4, in_channels=1)
    model.set_submodule("head", nn.Sequential(nn.Dropout(0.5), model.head))
    return Classifier(model, 1)


def trained(name: str) -> dict[str, Tensor]:
    """Two epochs, whole; the weights and, of each epoch, loss and accuracies."""
    config = tiny(**RECIPES[name])
    of = Trainer(config, load_config_data(config))
    prepare = of.prepare
    of.prepare = lambda images: prepare(images).double()  # pyright: ignore[reportAttributeAccessIssue]
    numbers = []
    for epoch in (1, 2):
        row = of.train_epoch(epoch, lambda *progress: None)
        numbers += [row["train_loss"], row["train_accuracy"], *of.evaluate(of.data.validation)]
    return {"numbers": torch.tensor(numbers, dtype=torch.float64), **of.model.state_dict()}


def train_all_and_a_run(rank: int, folder: Path, port: int) -> None:
    """One of two processes: weights of all recipes; a whole run, and one that ends in its second epoch and goes on."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    trainer.make_classifier = without_batch_norm
    torch.save({name: trained(name) for name in RECIPES}, folder / f"{rank}.pt")

    trainer.make_classifier = with_dropout
    run.write_run_page = lambda *args: None  # pyright: ignore[reportAttributeAccessIssue]
    config = tiny(**METHOD)
    train(config, folder / "whole")
    due = SavingTimes.due

    def stopping(self: SavingTimes, iteration: int) -> bool:
        self.signal = 15 if iteration == 5 else 0
        return iteration == 5

    SavingTimes.due = stopping
    with pytest.raises(Stopped):
        train(config, folder / "cut")
    SavingTimes.due = due
    assert train(config, folder / "cut", resume=True)["iterations"] == 6
    torch.distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    multiprocessing.start_processes(  # pyright: ignore
        train_all_and_a_run, (folder, free_port()), nprocs=2, start_method="spawn"
    )
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_equal_one(name: str, of_two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "make_classifier", without_batch_norm)
    expected = trained(name)
    for rank in range(2):
        found = torch.load(of_two / f"{rank}.pt")[name]
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-10, msg=f"{rank} {key}")


def test_accumulated_gradients_are_those_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "make_classifier", without_batch_norm)
    whole, in_parts = trained("parameters"), trained("accumulation")
    for key, value in whole.items():
        torch.testing.assert_close(in_parts[key], value, rtol=1e-10, atol=1e-10, msg=key)
    assert any(not torch.equal(in_parts[key], value) for key, value in whole.items())  # it was done in parts


def test_run_of_two_processes_goes_on_to_the_same_bits(of_two: Path) -> None:
    """In the middle of an epoch, with dropout of each process's own generator."""
    weights = [(of_two / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1] and metrics(of_two / "whole") == metrics(of_two / "cut")
    entries = json.loads((of_two / "cut/environment.json").read_text())
    assert [entry["processes"] for entry in entries] == [2, 2]


def test_more_processes_and_parts_than_images_are_refused() -> None:
    config = tiny(batch_size=2, accumulation=3)
    with pytest.raises(UserError, match="`batch_size` must be at least 3"):
        Trainer(config, load_config_data(config))


TINY = "--depth 8 --width 2 --train-size 96 --batch-size 32 --epochs 2 --drop-path-rate 0.5 --device cpu --threads 1"


def launched(launcher: list[str], out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(run.__file__).parents[2])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", *launcher, "-m", "residualdroppath", "train", *TINY.split(), "--out", str(out)]
    return subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=300)


def test_torchrun_starts_two_of_which_one_speaks_and_writes(tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    ended = launched(launcher, tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert len(re.findall("test accuracy", ended.stdout)) == 1
    assert len(re.findall("epoch   2/2", ended.stderr)) == 1
    assert "6 iterations of 32 images, on 2 processes (cpu)" in ended.stderr
    assert len(json.loads((tmp_path / "out/environment.json").read_text())) == 1
    again = launched(launcher, tmp_path / "out")
    assert again.returncode == 1 and again.stderr.count("error: ") == 1 and "is in use" in again.stderr


@pytest.mark.full
def test_accelerate_launch(tmp_path: Path) -> None:
    launcher = ["accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    ended = launched(launcher, tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out/result.json").is_file()
