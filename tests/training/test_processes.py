"""Two processes train as one does on the same batches, and the launchers start them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing, nn

from residualdroppath.cli import main as command_line
from residualdroppath.errors import Stopped, UserError
from residualdroppath.integrations import ddp
from residualdroppath.models.classifier import Classifier
from residualdroppath.models.small_resnet import SmallResNet
from residualdroppath.training import making, run
from residualdroppath.training.processes import Processes
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.saving import SavingTimes
from residualdroppath.training.sharding import whole
from residualdroppath.training.trainer import Trainer

from .test_training_images import EVERYTHING
from .tiny_runs import manifests, metrics, tiny

# Batches of 30: an odd number of rows, in parts of 7 and 8.
METHOD: dict[str, Any] = {"drop_path_rate": 0.5, "batch_size": 30, "mirror": True, "crop_padding": 1}
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {**METHOD, "method": "plain"},
    "parameters": METHOD,
    "stop_gradient": {**METHOD, "freeze": "stop_gradient"},
    "sample": {**METHOD, "freeze": "stop_gradient", "granularity": "sample"},
    "union, clipped": {**METHOD, "schedule": (4, 1), "trains": "union", "clip_grad": 0.05},
    "accumulation": {**METHOD, "accumulation": 2},
    "augmented, averaged": {
        **METHOD, **EVERYTHING, "crop_padding": None, "batch_size": 32, "mix_mode": "pair", "ema": 0.9,
    },
    "cycle on one batch, adamw": {**METHOD, "cycle": "same_batch", "optimizer": "adamw", "lr": 0.01, "batch_size": 31},
}  # fmt: skip


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


def trained(name: str, **options: Any) -> dict[str, Tensor]:
    """Two epochs, whole; the weights and, of each epoch, loss and accuracies."""
    config = tiny(**RECIPES[name], **options)
    of = Trainer(config, load_config_data(config))
    prepare = of.prepare
    of.prepare = lambda images: prepare(images).double()  # pyright: ignore[reportAttributeAccessIssue]
    numbers = []
    for epoch in (1, 2):
        row = of.train_epoch(epoch, lambda *progress: None)
        numbers += [row["train_loss"], row["train_accuracy"], *of.evaluate(of.data.validation)[:2]]
    average = {} if of.ema is None else whole(of.ema.module.state_dict())
    average = {f"ema {name}": value for name, value in average.items()}
    return {"numbers": torch.tensor(numbers, dtype=torch.float64), **whole(of.model.state_dict()), **average}


def values_sent() -> list[tuple[str, int, int]]:
    """Of each iteration of an epoch its kind, how many gradients were sent, and how many parameters learn."""
    sent: list[int] = [0]

    def counted(values: Tensor, **options: Any) -> Any:
        sent[0] += values.numel()
        return torch.distributed.all_reduce(values, **options)

    with pytest.MonkeyPatch.context() as patch:
        namespace = SimpleNamespace(all_reduce=counted, get_world_size=torch.distributed.get_world_size)
        patch.setattr(ddp, "distributed", namespace)
        config = tiny(**METHOD)
        of = Trainer(config, load_config_data(config))
        rows = []
        for images, labels in list(of.batches(1)):
            assert of.rdp is not None
            everything = sum(each.numel() for each in of.model.parameters())
            frozen = sum(each.numel() for each in of.rdp.frozen_parameters().values())
            kind, sent[0] = of.kind, 0
            of.train_iteration(images.double(), labels)
            rows.append((kind, sent[0], everything - frozen))
    return rows


def become_one_of_two(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}


def train_all_and_a_run(rank: int, folder: Path, port: int) -> None:
    """One of two processes: weights of all recipes; a whole run, and one that ends in its second epoch and goes on."""
    become_one_of_two(rank, port)
    making.make_classifier = without_batch_norm
    torch.save({name: trained(name) for name in RECIPES}, folder / f"{rank}.pt")
    torch.save(values_sent(), folder / f"sent-{rank}.pt")

    making.make_classifier = with_dropout
    run.write_run_page = lambda *args: None  # pyright: ignore[reportAttributeAccessIssue]
    config = tiny(**METHOD)
    train(config, folder / "whole")
    stopped_in_second_epoch(config, folder / "cut")
    assert train(config, folder / "cut", resume=True)["iterations"] == 6
    torch.distributed.destroy_process_group()


def stopped_in_second_epoch(config: TrainConfig, out: Path) -> None:
    """A run that a signal ends after iteration 5 of 6, in the middle of an epoch."""

    def stopping(self: SavingTimes, iteration: int) -> bool:
        self.signal = 15 if iteration == 5 else 0
        return iteration == 5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SavingTimes, "due", stopping)
        with pytest.raises(Stopped):
            train(config, out)


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
    monkeypatch.setattr(making, "make_classifier", without_batch_norm)
    expected = trained(name)
    for rank in range(2):
        found = torch.load(of_two / f"{rank}.pt")[name]
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-10, msg=f"{rank} {key}")


def test_only_gradients_of_what_learns_are_sent(of_two: Path) -> None:
    rows = torch.load(of_two / "sent-0.pt")
    assert rows == torch.load(of_two / "sent-1.pt") and {kind for kind, _, _ in rows} == {"drop_path", "dropped_part"}
    for kind, sent, learning in rows:
        assert sent == learning > 0, kind
    assert len({sent for _, sent, _ in rows}) > 1


def test_accumulated_gradients_are_those_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "make_classifier", without_batch_norm)
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


def started(launcher: list[str], out: Path, *options: str) -> subprocess.Popen[str]:
    source = str(Path(run.__file__).parents[2])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", *launcher, "-m", "residualdroppath", "train", *TINY.split(), "--out", str(out)]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *options], env=environment, stdout=pipe, stderr=pipe, text=True)


def launched(launcher: list[str], out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    with started(launcher, out, *options) as process:
        printed = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, *printed)


def test_torchrun_starts_two_of_which_one_speaks_and_writes(tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    ended = launched(launcher, tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert len(re.findall("test accuracy", ended.stdout)) == 1
    assert len(re.findall("epoch   2/2", ended.stderr)) == 1
    assert "6 iterations of 32 images, on 2 processes (cpu)" in ended.stderr
    assert len(json.loads((tmp_path / "out/environment.json").read_text())) == 1


@pytest.mark.full
def test_what_is_wrong_with_the_folder_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("years of work")
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    ended = launched(launcher, tmp_path / "out")
    assert ended.returncode == 1 and ended.stderr.count("is in use; choose another `out`") == 1
    assert "RuntimeError" not in ended.stderr  # of the other process, left alone in an exchange


@pytest.mark.full
def test_signal_that_one_of_two_gets_ends_both(tmp_path: Path) -> None:
    """The launcher passes SIGTERM on to all; here one process of two alone gets SIGUSR1, as from a batch system."""
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    with started(launcher, tmp_path / "out", "--epochs", "1000") as process:
        while not manifests(tmp_path / "out"):
            assert process.poll() is None
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGUSR1)
        _, error = process.communicate(timeout=120)
    kept = manifests(tmp_path / "out")[-1]
    assert process.returncode == 1 and kept % 10 == 0 and f"stopped by SIGUSR1: iteration {kept} is kept" in error
    assert not (tmp_path / "out/result.json").exists()


@pytest.mark.parametrize("name", ["ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND"])
def test_choices_of_the_launcher_that_are_not_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(name, "inductor")
    with pytest.raises(UserError, match=f"{name} must be no, got inductor from the launcher"):
        Processes("cpu")


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"])
def test_sharding_is_refused_where_accelerate_would_do_without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs it does DDP, without a word."""
    monkeypatch.setenv(name, "false")
    Processes("cpu")
    monkeypatch.setenv(name, "true")
    with pytest.raises(UserError, match=f"{name} must be false, got true from the launcher: .* has `shard`"):
        Processes("cpu")


def test_synchronised_norms_are_refused_on_cpus_and_where_there_are_none() -> None:
    processes, model = Processes("cpu"), SmallResNet(8, 4, in_channels=1)
    assert processes.with_synchronised_norms(model) is model  # one process
    processes.count = 2
    with pytest.raises(UserError, match="`sync_batch_norm` needs CUDA devices, .* got 2 processes on cpu"):
        processes.with_synchronised_norms(model)
    with pytest.raises(UserError, match="`sync_batch_norm` is for networks with batch norm"):
        processes.with_synchronised_norms(nn.Linear(2, 2))


def test_synchronised_norms_on_cuda_keep_names_and_act_under_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, without other processes, SyncBatchNorm computes what BatchNorm does: only the choice is tried here."""
    chosen = Processes("cpu")
    chosen.count, chosen.device = 2, torch.device("cuda")
    names = set(SmallResNet(8, 4, in_channels=1).state_dict())
    model = chosen.with_synchronised_norms(SmallResNet(8, 4, in_channels=1))
    assert set(model.state_dict()) == names
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {nn.SyncBatchNorm}

    weights = []
    for convert in (lambda self, model: model, lambda self, model: nn.SyncBatchNorm.convert_sync_batchnorm(model)):
        monkeypatch.setattr(Processes, "with_synchronised_norms", convert)
        config = tiny(**METHOD, sync_batch_norm=True)
        of = Trainer(config, load_config_data(config))
        of.train_epoch(1, lambda *progress: None)
        assert any(isinstance(each, nn.SyncBatchNorm) for each in of.model.modules()) == bool(weights)
        assert of.rdp is not None and of.rdp.branches
        weights.append(of.model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_other_commands_are_not_for_launchers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command_line.run(["compare", "--data", "digits"]) == 2
    assert "are for `train`, got 'compare'" in capsys.readouterr().err


@pytest.mark.full
def test_accelerate_launch(tmp_path: Path) -> None:
    launcher = ["accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    ended = launched(launcher, tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out/result.json").is_file()
