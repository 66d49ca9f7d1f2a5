"""Two processes that split weights and optimizer state train as one does, and their checkpoints are whole."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, multiprocessing, nn

from residualdroppath.core.discovery.network_walk import discover
from residualdroppath.errors import UserError
from residualdroppath.models.classifier import Classifier
from residualdroppath.models.small_resnet import SmallResNet
from residualdroppath.training import making, run
from residualdroppath.training.divergence import largest_weight
from residualdroppath.training.recipe import TrainConfig, checked
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.sharding import blocks_to_shard, is_sharded, local, whole
from residualdroppath.training.trainer import Trainer
from residualdroppath.training.training_options import SHARDING_OPTIMIZERS

from .test_processes import (
    METHOD,
    RECIPES,
    become_one_of_two,
    free_port,
    launched,
    stopped_in_second_epoch,
    trained,
    without_batch_norm,
)
from .tiny_runs import final_state, tiny

NAMES = [name for name in RECIPES if name != "sample"]
OF_TIMM = {"lr": 0.01}
FURTHER: dict[str, dict[str, Any]] = {
    **{name: {**OF_TIMM, "optimizer": name} for name in ("lamb", "lion", "lookahead_adamw")},
    "frozen parts": {"freeze_modules": ("blocks.0", "stem*")},
    "a control": {"method": "freezing_only"},
}
FREEZES = ("parameters", "stop_gradient")
# State of an optimizer, an average, weights of an epoch that is read again; three batches of test images for two.
RUN: dict[str, Any] = {"drop_path_rate": 0.5, "batch_size": 30, "optimizer": "adamw", "lr": 0.01, "ema": 0.9}
RUN |= {"use": "best", "clip_grad": 0.5, "shard": True}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Overwriting(Block):
    def forward(self, x: Tensor) -> Tensor:
        added = self.body(x)
        x += added
        return x


class ByCall(Block):
    """Its branch is found in the first training forward alone, when it is split already."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if torch.isfinite(out).all() else out.nan_to_num()


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def of_blocks(*blocks: nn.Module, dtype: torch.dtype = torch.float64) -> Callable[..., Classifier]:
    """A maker of a network of such blocks, eight wide."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 8), *blocks, nn.Linear(8, 10)]
    return lambda *args, **kwargs: Classifier(nn.Sequential(*layers).to(dtype), 1)


def tied() -> nn.Sequential:
    """The first and the third block share a weight."""
    model = nn.Sequential(Block(8), Block(8), Block(8))
    model.get_submodule("2.body.0").register_parameter("weight", model.get_parameter("0.body.0.weight"))
    return model


def make_networks() -> dict[str, Callable[..., Classifier]]:
    torch.manual_seed(0)
    found = {"tied": of_blocks(*tied()), "by a call": of_blocks(Block(8), ByCall(8), Block(8), ByCall(8))}
    found["width of one"] = of_blocks(nn.Linear(8, 1), Block(1), Block(1), nn.Linear(1, 8))  # a part is empty
    return found


def trainer_of(make: Callable[..., Classifier], **options: Any) -> Trainer:
    making.make_classifier = make
    config = tiny(**{**METHOD, "shard": True, **options})
    return Trainer(config, load_config_data(config))


def after_six(make: Callable[..., Classifier], **options: Any) -> dict[str, Tensor]:
    """Weights."""
    of = trainer_of(make, **options)
    for epoch in (1, 2):
        for images, labels in of.batches(epoch):
            of.train_iteration(images.double(), labels)
    return whole(of.model.state_dict())


def half_precision() -> dict[str, Tensor]:
    """Weights after three iterations, of which the first is too large for fp16 in one process; both leave it out."""
    of = trainer_of(of_blocks(Block(8), Block(8), dtype=torch.float32), amp="fp16", clip_grad=0.5)
    for number, (images, labels) in enumerate(of.batches(1)):
        if number == 0 and of.processes.rank == of.processes.count - 1:
            images = images * 1e30
        of.train_iteration(images, labels)
    return {**whole(of.model.state_dict()), "scale": torch.tensor(of.scaler.get_scale())}


def moved(freeze: str) -> list[tuple[str, set[str], set[str]]]:
    """Of each iteration its kind, which weights it freezes, and which of all have other bits afterwards."""
    of = trainer_of(without_batch_norm, freeze=freeze, optimizer="adamw")
    rows = []
    for epoch in (1, 2):
        for images, labels in of.batches(epoch):
            assert of.rdp is not None
            kind, frozen, before = of.kind, set(of.rdp.frozen_parameters()), whole(of.model.state_dict())
            of.train_iteration(images.double(), labels)
            after = whole(of.model.state_dict())
            rows.append((kind, frozen, {name for name in after if not torch.equal(after[name], before[name])}))
    return rows


def parts() -> dict[str, Any]:
    """What a process holds, once trained and evaluated: all that is split stays so."""
    of = trainer_of(without_batch_norm, optimizer="adamw")
    images, labels = next(iter(of.batches(1)))
    of.train_iteration(images.double(), labels)
    prepare = of.prepare
    of.prepare = lambda images: prepare(images).double()  # pyright: ignore[reportAttributeAccessIssue]
    of.validate()
    parameters = list(of.model.parameters())
    momenta = [state["exp_avg"] for state in of.optimizer.state.values()]
    return {
        "held": sum(local(each).numel() for each in parameters),
        "all": sum(each.numel() for each in parameters),
        "momenta": all(local(each).numel() < each.numel() or each.numel() == 1 for each in momenta),
        "groups": [path for path, module in of.model.named_modules() if is_sharded(module)],
    }


def message_of(work: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as error:
        work()
    return str(error.value)


def iterate(of: Trainer) -> None:
    images, labels = next(iter(of.batches(1)))
    of.train_iteration(images.double(), labels)


def in_float64() -> None:
    """Runs of networks in it."""
    making.make_classifier = without_batch_norm
    run.write_run_page = lambda *args: None  # pyright: ignore[reportAttributeAccessIssue]
    prepare = Trainer.prepare
    Trainer.prepare = lambda self, images: prepare(self, images).double()  # pyright: ignore[reportAttributeAccessIssue]


def train_all_sharded(rank: int, folder: Path, port: int) -> None:
    """One of two processes."""
    become_one_of_two(rank, port)
    making.make_classifier = without_batch_norm
    torch.save({name: trained(name, shard=True) for name in NAMES}, folder / f"{rank}.pt")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.save({name: after_six(make) for name, make in make_networks().items()}, folder / f"networks-{rank}.pt")
    (folder / f"warnings-{rank}.json").write_text(json.dumps([str(warning.message) for warning in caught]))
    further = {name: after_six(without_batch_norm, **options) for name, options in FURTHER.items()}
    torch.save(further, folder / f"further-{rank}.pt")
    torch.save({"fp16": half_precision()}, folder / f"fp16-{rank}.pt")
    torch.save({freeze: moved(freeze) for freeze in FREEZES}, folder / f"moved-{rank}.pt")
    torch.save(parts(), folder / f"parts-{rank}.pt")
    messages = {
        "overwriting": message_of(lambda: iterate(trainer_of(of_blocks(Overwriting(8), Overwriting(8))))),
        "scalar": message_of(lambda: trainer_of(of_blocks(Block(8), Scale(), Block(8)))),
    }
    (folder / f"messages-{rank}.json").write_text(json.dumps(messages))

    in_float64()
    config = tiny(**RUN)
    train(config, folder / "whole")
    for name in ("by two", "by two alone"):
        stopped_in_second_epoch(config, folder / name)
    train(config, folder / "by two", resume=True)
    train(config, folder / "by one", resume=True)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave; one has begun the run "by one", and ends "by two alone"."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((making, "make_classifier"), (run, "write_run_page"), (Trainer, "prepare")):
            patch.setattr(owner, name, getattr(owner, name))  # put back at the end
        in_float64()
        stopped_in_second_epoch(tiny(**RUN), folder / "by one")
        multiprocessing.start_processes(  # pyright: ignore
            train_all_sharded, (folder, free_port()), nprocs=2, start_method="spawn"
        )
        train(tiny(**RUN), folder / "by two alone", resume=True)
        train(tiny(**RUN), folder / "one")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_two_sharded_processes_equal_one(name: str, of_two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "make_classifier", without_batch_norm)
    require_equal(trained(name), of_two, "", name)


@pytest.mark.parametrize("name", make_networks())
def test_networks_that_are_split_in_other_ways(name: str, of_two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "make_classifier", making.make_classifier)  # put back at the end
    require_equal(after_six(make_networks()[name]), of_two, "networks-", name)


def test_blocks_that_return_what_they_are_given_cause_no_warning(of_two: Path) -> None:
    for rank in range(2):
        messages = json.loads((of_two / f"warnings-{rank}.json").read_text())
        assert messages and not any("view tensor" in message for message in messages)  # those of rates are there


@pytest.mark.parametrize("name", FURTHER)
def test_further_options(name: str, of_two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "make_classifier", making.make_classifier)
    require_equal(after_six(without_batch_norm, **FURTHER[name]), of_two, "further-", name)


def test_processes_leave_out_the_same_steps_of_fp16(of_two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "make_classifier", making.make_classifier)
    expected = half_precision()
    assert expected["scale"] < 2**16
    for rank in range(2):
        for name, value in torch.load(of_two / f"fp16-{rank}.pt")["fp16"].items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4, msg=name)


def require_equal(expected: dict[str, Tensor], folder: Path, kind: str, name: str) -> None:
    for rank in range(2):
        found = torch.load(folder / f"{kind}{rank}.pt")[name]
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-10, msg=f"{rank} {key}")


@pytest.mark.parametrize("freeze", FREEZES)
def test_what_the_plan_freezes_keeps_its_bits(freeze: str, of_two: Path) -> None:
    rows = torch.load(of_two / "moved-0.pt")[freeze]
    assert rows == torch.load(of_two / "moved-1.pt")[freeze]
    assert {kind for kind, _, _ in rows} == {"drop_path", "dropped_part"}
    for kind, frozen, other in rows:
        assert frozen and other and not frozen & other, kind


def test_each_process_holds_its_part_alone(of_two: Path) -> None:
    both = [torch.load(of_two / f"parts-{rank}.pt") for rank in range(2)]
    assert both[0]["held"] + both[1]["held"] == both[0]["all"]
    assert max(each["held"] for each in both) < 0.6 * both[0]["all"]
    assert all(each["momenta"] for each in both)
    assert both[0]["groups"] == ["", "blocks.0", "blocks.1", "blocks.2"]


@pytest.mark.parametrize("name", ["whole", "by two", "by two alone", "by one"])
def test_runs_may_change_the_number_of_processes(name: str, of_two: Path) -> None:
    """Stopped in the middle of an epoch, by two processes or by one, and gone on with by two or by one."""
    expected, found = (load_file(of_two / each / "model.safetensors") for each in ("one", name))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-10, msg=key)
    results = [json.loads((of_two / each / "result.json").read_text()) for each in ("one", name)]
    for key in ("test_accuracy", "validation_accuracy", "parameters", "trunk_updates"):
        assert results[0][key] == results[1][key], key
    entries = json.loads((of_two / name / "environment.json").read_text())
    processes = {"whole": [2], "by two": [2, 2], "by two alone": [2, 1], "by one": [1, 2]}
    assert [entry["processes"] for entry in entries] == processes[name]


def test_sharded_run_goes_on_to_the_same_bits(of_two: Path) -> None:
    for file in ("model.safetensors", "ema.safetensors"):
        assert (of_two / "whole" / file).read_bytes() == (of_two / "by two" / file).read_bytes(), file


def test_checkpoints_of_shards_are_those_of_one_process(of_two: Path) -> None:
    """Nothing in them is split, so that anything reads them."""
    weights, state = final_state(of_two / "whole")
    expected_weights, expected = final_state(of_two / "one")
    assert state.keys() == expected.keys() and weights.keys() == expected_weights.keys()
    for found, other in ((state["ema"], expected["ema"]), *zip(*(moments(s) for s in (state, expected)), strict=True)):
        assert found.keys() == other.keys()
        for key, value in other.items():
            assert type(found[key]) is Tensor
            torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-10, msg=key)


def moments(state: dict[str, Any]) -> list[dict[str, Tensor]]:
    return [entry for _, entry in sorted(state["optimizer"]["state"].items())]


def test_networks_that_torch_cannot_split_are_refused(of_two: Path) -> None:
    for rank in range(2):
        messages = json.loads((of_two / f"messages-{rank}.json").read_text())
        assert "a block overwrites what it is given" in messages["overwriting"]
        assert "`shard` must be left out for this network: fully_shard doesn't support scalar" in messages["scalar"]


def test_one_process_splits_nothing() -> None:
    config = tiny(**METHOD, shard=True)
    of = Trainer(config, load_config_data(config))
    assert not any(is_sharded(module) for module in of.model.modules())


def test_blocks_that_share_parameters_with_others_are_left_to_the_root() -> None:
    model = tied()
    assert blocks_to_shard(model, discover(model)) == ["1"]
    model = SmallResNet(8, 4, in_channels=1)
    assert blocks_to_shard(model, discover(model)) == ["blocks.0", "blocks.1", "blocks.2"]
    block = Block(8)  # itself the network
    assert blocks_to_shard(block, discover(block)) == []


@pytest.mark.parametrize(
    "option, value",
    [
        ("granularity", "sample"),
        ("compile", True),
        ("channels_last", True),
        ("sync_batch_norm", True),
        ("optimizer", "muon"),
        ("optimizer", "lookahead_adamp"),
    ],
)
def test_what_does_not_go_with_shards(option: str, value: Any) -> None:
    options = {option: value, **({"freeze": "stop_gradient"} if value == "sample" else {})}
    TrainConfig(**options)
    with pytest.raises(UserError, match=f"`{option}` .* with `shard`"):
        checked(lambda: TrainConfig(**options, shard=True), "a test")


def test_weights_that_are_not_numbers_are_beyond_all() -> None:
    """In the order by which processes find the largest, NaN has no place."""
    model = nn.Linear(2, 2)
    assert largest_weight(model) < 1
    nn.init.constant_(model.weight, float("nan"))
    assert largest_weight(model) == float("inf")


@pytest.mark.full
def test_torchrun_with_shards(tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    ended = launched(launcher, tmp_path / "out", "--shard", "--recalibrate-norms", "2")
    assert ended.returncode == 0, ended.stderr
    assert "on 2 processes (cpu), weights split over them" in ended.stderr
    assert "view tensor" not in ended.stderr


def train_by_optimizers(rank: int, folder: Path, port: int) -> None:
    become_one_of_two(rank, port)
    names = sorted(SHARDING_OPTIMIZERS)
    torch.save(
        {name: after_six(without_batch_norm, **OF_TIMM, optimizer=name) for name in names}, folder / f"{rank}.pt"
    )
    torch.distributed.destroy_process_group()


@pytest.mark.full
def test_all_optimizers_that_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "make_classifier", making.make_classifier)
    multiprocessing.start_processes(  # pyright: ignore
        train_by_optimizers, (tmp_path, free_port()), nprocs=2, start_method="spawn"
    )
    for name in sorted(SHARDING_OPTIMIZERS):
        require_equal(after_six(without_batch_norm, **OF_TIMM, optimizer=name), tmp_path, "", name)
