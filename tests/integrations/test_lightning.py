"""The callback in Lightning's `Trainer`: the same bits as the two lines in a loop of one's own."""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from residualdroppath import ResidualDropPath
from residualdroppath.core.forward_override import ForwardOverride

pytest.importorskip("lightning.pytorch", reason="needs `lightning`")

from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402
from lightning.pytorch.callbacks import (  # noqa: E402
    EMAWeightAveraging,
    ModelCheckpoint,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
)

from residualdroppath.integrations.lightning import ResidualDropPathCallback  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]

NUM_BATCHES = 7
PREAMBLE = "from residualdroppath.models.torchvision_ops import ensure_torchvision_ops as ensure\nensure()\n"
OPTIONS: dict[str, Any] = {"drop_path_rate": 0.5, "rate_over_depth": "uniform"}


class Block(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Checked(Block):
    """Its branch is found in the first training forward alone."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if torch.isfinite(out).all() else out.nan_to_num()


def network(second: type[Block] = Block, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), Block(), second(), Block(), nn.Linear(4, 2))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)


class Task(LightningModule):
    """`training_step` calls the child, not this module."""

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.model = network() if model is None else model

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.model(batch[0])

    def configure_optimizers(self) -> Any:
        return sgd(self)


class Loader:
    """The same batches in every epoch, in order; goes on in the middle of one."""

    def __init__(self, num_batches: int = NUM_BATCHES) -> None:
        generator = torch.Generator().manual_seed(1)
        labels = [torch.tensor([0, 1, 0, 1, 1])] * num_batches
        self.batches = [(torch.randn(5, 3, generator=generator), label) for label in labels]
        self.place = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for place in range(self.place % len(self), len(self)):
            self.place = place + 1
            yield self.batches[place]

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


def trainer(folder: Path, *callbacks: Any, **keywords: Any) -> Trainer:
    keywords = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, **keywords}
    return Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **keywords,
    )


def assert_same_bits(actual: nn.Module, expected: nn.Module) -> None:
    found, wanted = actual.state_dict(), expected.state_dict()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def assert_plain(model: nn.Module) -> None:
    assert not any(isinstance(module.forward, ForwardOverride) for module in model.modules())


def train_by_hand(model: nn.Module, num_epochs: int = 2, accumulation: int = 1, **options: Any) -> ResidualDropPath:
    """What the callback has to do, in a loop of one's own."""
    rdp = ResidualDropPath(model, **{**OPTIONS, **options})
    optimizer = sgd(model)
    for _ in range(num_epochs):
        for place, (inputs, labels) in enumerate(Loader(), start=1):
            (nn.functional.cross_entropy(model(inputs), labels) / accumulation).backward()
            if place % accumulation == 0 or place == NUM_BATCHES:
                optimizer.step()
                optimizer.zero_grad()
                rdp.step()
    rdp.remove()
    return rdp


@pytest.mark.parametrize("accumulation", [1, 3])
def test_equals_a_loop_of_ones_own(tmp_path: Path, accumulation: int) -> None:
    expected = network()
    by_hand = train_by_hand(expected, accumulation=accumulation)
    callback, task = ResidualDropPathCallback(**OPTIONS), Task()
    of = trainer(tmp_path, callback, accumulate_grad_batches=accumulation)
    of.fit(task, Loader())
    assert callback.rdp is not None and callback.rdp.iteration == by_hand.iteration == of.global_step
    assert callback.rdp.model is task.model
    assert_same_bits(task.model, expected)
    assert_plain(task)


def test_clipped_and_in_bfloat16(tmp_path: Path) -> None:
    expected, task = network(), Task()
    rdp, optimizer = ResidualDropPath(expected, **OPTIONS), sgd(expected)
    for inputs, labels in Loader():
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(expected(inputs), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(expected.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        rdp.step()
    rdp.remove()
    of = trainer(
        tmp_path, ResidualDropPathCallback(**OPTIONS), max_epochs=1, precision="bf16-mixed", gradient_clip_val=0.1
    )
    of.fit(task, Loader())
    assert_same_bits(task.model, expected)


class Compiles(Task):
    def on_fit_start(self) -> None:
        (callback,) = (each for each in self.trainer.callbacks if isinstance(each, ResidualDropPathCallback))  # pyright: ignore
        assert callback.rdp is not None
        callback.rdp.compile(backend="eager")


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_branches_are_compiled_one_by_one(tmp_path: Path) -> None:
    expected, task = network(), Compiles()
    train_by_hand(expected)
    trainer(tmp_path, ResidualDropPathCallback(**OPTIONS)).fit(task, Loader())
    assert_same_bits(task.model, expected)


@pytest.mark.parametrize("num_steps", [3, 4, 9])
def test_resumes_in_the_middle_of_an_epoch_and_of_a_cycle(tmp_path: Path, num_steps: int) -> None:
    expected = Task()
    trainer(tmp_path, ResidualDropPathCallback(**OPTIONS, seed=3)).fit(expected, Loader())
    files = ModelCheckpoint(tmp_path, filename="at-{step}", every_n_train_steps=1, save_top_k=-1)
    of = trainer(
        tmp_path, ResidualDropPathCallback(**OPTIONS, seed=3), files, max_steps=num_steps, enable_checkpointing=True
    )
    of.fit(Task(), Loader())
    resumed, callback = Task(network(seed=1)), ResidualDropPathCallback(**OPTIONS, seed=3)
    trainer(tmp_path, callback).fit(resumed, Loader(), ckpt_path=tmp_path / f"at-step={num_steps}.ckpt")
    assert callback.rdp is not None and callback.rdp.iteration == 2 * NUM_BATCHES
    assert_same_bits(resumed, expected)


def test_a_checkpoint_of_other_options_is_refused(tmp_path: Path) -> None:
    of = trainer(tmp_path, ResidualDropPathCallback(0.5), max_steps=1)
    of.fit(Task(), Loader())
    of.save_checkpoint(tmp_path / "end.ckpt")
    with pytest.raises(ValueError, match="drop_path_rate=0.5, this one has 0.25"):
        trainer(tmp_path, ResidualDropPathCallback(0.25)).fit(Task(), Loader(), ckpt_path=tmp_path / "end.ckpt")


class SavesEarly(Callback):
    """Writes a checkpoint in the batch whose optimizer step was made, before other callbacks hear of its end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 4:
            trainer.save_checkpoint(self.path)


def test_a_checkpoint_before_the_end_of_a_batch_holds_the_next_plan(tmp_path: Path) -> None:
    callback = ResidualDropPathCallback(**OPTIONS)
    trainer(tmp_path, SavesEarly(tmp_path / "early.ckpt"), callback).fit(Task(), Loader())
    (state,) = torch.load(tmp_path / "early.ckpt")["callbacks"].values()
    assert state["iteration"] == 4


class Looks(Callback):
    """What validation and checkpoints see: compared with a plain copy of the network."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        plain = copy.deepcopy(pl_module.model)
        assert_plain(plain)
        assert torch.equal(plain(batch[0]), outputs)
        assert all(parameter.requires_grad for parameter in pl_module.parameters())
        (callback,) = (each for each in trainer.callbacks if isinstance(each, ResidualDropPathCallback))  # pyright: ignore
        assert callback.rdp is not None
        self.kinds.add(callback.rdp.kind)


def test_validation_between_iterations_sees_the_whole_network(tmp_path: Path) -> None:
    looks, task, expected = Looks(), Task(), network()
    of = trainer(tmp_path, ResidualDropPathCallback(**OPTIONS), looks, val_check_interval=1)
    of.fit(task, Loader(), Loader(2))
    assert looks.kinds == {"drop_path", "dropped_part"}
    train_by_hand(expected)
    assert_same_bits(task.model, expected)


class TwoOptimizers(Task):
    """Manual optimization: two optimizers, each with its own forward, as adversarial training has it."""

    def __init__(self) -> None:
        super().__init__()
        self.other = network(seed=1)
        self.automatic_optimization = False
        self.num_moved_and_frozen = [0, 0]

    def configure_optimizers(self) -> Any:
        return [sgd(self.model), sgd(self.other)]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        (callback,) = (each for each in self.trainer.callbacks if isinstance(each, ResidualDropPathCallback))  # pyright: ignore
        for optimizer, model in zip(self.optimizers(), (self.model, self.other), strict=True):  # pyright: ignore
            before = copy.deepcopy(model).state_dict()
            self.toggle_optimizer(optimizer)
            assert callback.rdp is not None
            self.manual_backward(nn.functional.cross_entropy(model(batch[0]), batch[1]))
            frozen = {id(parameter) for parameter in callback.rdp.frozen_parameters().values()}
            optimizer.step()
            optimizer.zero_grad()
            self.untoggle_optimizer(optimizer)
            for name, parameter in model.named_parameters():
                moved = not torch.equal(parameter, before[name])
                assert not (moved and id(parameter) in frozen), name
                self.num_moved_and_frozen[0] += moved
                self.num_moved_and_frozen[1] += id(parameter) in frozen


def test_two_optimizers_by_hand_are_one_update(tmp_path: Path) -> None:
    task, callback = TwoOptimizers(), ResidualDropPathCallback(**OPTIONS)
    of = trainer(tmp_path, callback)
    of.fit(task, Loader())
    assert callback.rdp is not None and callback.rdp.model is task
    assert of.global_step == 2 * callback.rdp.iteration == 4 * NUM_BATCHES
    assert min(task.num_moved_and_frozen) > 0


class EveryOther(TwoOptimizers):
    """The first of two networks is updated in every other batch."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        both = zip(self.optimizers(), (self.model, self.other), strict=True)  # pyright: ignore
        for optimizer, model in itertools.islice(both, batch_idx % 2, None):
            self.manual_backward(nn.functional.cross_entropy(model(batch[0]), batch[1]))
            optimizer.step()
            optimizer.zero_grad()


def test_each_network_steps_with_its_own_optimizer(tmp_path: Path) -> None:
    callbacks = [ResidualDropPathCallback(**OPTIONS, module=name) for name in ("model", "other")]
    trainer(tmp_path, *callbacks, max_epochs=1).fit(EveryOther(), Loader(7))
    assert [callback.rdp and callback.rdp.iteration for callback in callbacks] == [4, 7]
    assert callbacks[0].state_key != callbacks[1].state_key


class Copies(Callback):
    """The network as each epoch begins, after callbacks before this one."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.last = copy.deepcopy(pl_module.model)


def test_averaging_of_weights_ends_with_a_pass_of_the_whole_network(tmp_path: Path) -> None:
    task, callback, copies = Task(), ResidualDropPathCallback(**OPTIONS), Copies()
    of = trainer(tmp_path, callback, StochasticWeightAveraging(0.05, swa_epoch_start=2), copies, max_epochs=4)
    of.fit(task, Loader())
    # The last pass ends with a step of the optimizer by gradients of the last batch before it, without us too.
    assert callback.rdp is not None and callback.rdp.iteration == of.global_step == 4 * NUM_BATCHES + 1
    torch.optim.swa_utils.update_bn(Loader(), copies.last)
    for name, value in copies.last.named_buffers():
        torch.testing.assert_close(value, task.model.get_buffer(name))
    assert_plain(task)


def test_a_moving_average_is_that_of_a_loop_of_ones_own(tmp_path: Path) -> None:
    task, average = Task(), EMAWeightAveraging(decay=0.5)
    trainer(tmp_path, ResidualDropPathCallback(**OPTIONS), average).fit(task, Loader(), Loader(2))
    expected, model = network(), network()
    mean = torch.optim.swa_utils.AveragedModel(expected, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    rdp, optimizer = ResidualDropPath(model, **OPTIONS), sgd(model)
    for inputs, labels in itertools.chain(Loader(), Loader()):
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        rdp.step()
        mean.update_parameters(model)
    for name, value in mean.module.named_parameters():
        torch.testing.assert_close(task.model.get_parameter(name), value, rtol=0, atol=1e-6)


def test_a_second_fit_goes_on_and_another_network_begins_anew(tmp_path: Path) -> None:
    expected, task, callback = network(), Task(), ResidualDropPathCallback(**OPTIONS)
    rdp = ResidualDropPath(expected, **OPTIONS)
    for _ in range(2):  # a trainer has an optimizer of its own
        optimizer = sgd(expected)
        for inputs, labels in itertools.islice(Loader(), 3):
            nn.functional.cross_entropy(expected(inputs), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            rdp.step()
        trainer(tmp_path, callback, max_steps=3).fit(task, Loader())
    rdp.remove()
    assert callback.rdp is not None and callback.rdp.iteration == 6
    assert_same_bits(task.model, expected)
    trainer(tmp_path, callback, max_steps=3).fit(Task(), Loader())
    assert callback.rdp.iteration == 3


class Fails(Callback):
    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 3:
            raise ZeroDivisionError


def test_an_error_leaves_the_network_plain_and_the_plan_saved(tmp_path: Path) -> None:
    task, callback = Task(), ResidualDropPathCallback(**OPTIONS)
    of = trainer(tmp_path, callback, OnExceptionCheckpoint(tmp_path, "error"), Fails(), enable_checkpointing=True)
    with pytest.raises(ZeroDivisionError):
        of.fit(task, Loader())
    assert_plain(task)
    assert torch.load(tmp_path / "error.ckpt")["callbacks"][callback.state_key]["iteration"] == 3
    trainer(tmp_path, ResidualDropPathCallback(**OPTIONS), max_steps=1).fit(task, Loader())


def test_evaluating_a_checkpoint_does_not_change_the_plan(tmp_path: Path) -> None:
    task, callback = Task(), ResidualDropPathCallback(**OPTIONS)
    of = trainer(tmp_path, callback, max_steps=3)
    of.fit(task, Loader())
    of.save_checkpoint(tmp_path / "third.ckpt")
    trainer(tmp_path, callback, max_steps=2).fit(task, Loader())
    trainer(tmp_path, callback).validate(task, Loader(2), ckpt_path=tmp_path / "third.ckpt", verbose=False)
    assert callback.rdp is not None and callback.rdp.iteration == 5
    assert callback.state_dict()["iteration"] == 5


class BuiltLate(Task):
    """Has no network before its `configure_model`."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())

    def configure_model(self) -> None:
        self.model = network()


def test_a_network_may_be_built_when_the_fit_begins(tmp_path: Path) -> None:
    expected, task = network(), BuiltLate()
    train_by_hand(expected)
    trainer(tmp_path, ResidualDropPathCallback(**OPTIONS)).fit(task, Loader())
    assert_same_bits(task.model, expected)


class Apart(Task):
    """Has two children with parameters, and no forward."""

    def __init__(self) -> None:
        body = network(Checked)
        super().__init__(body[:-1])
        self.head = body[-1]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.model(batch[0])), batch[1])


def test_branches_that_a_call_shows(tmp_path: Path) -> None:
    callback = ResidualDropPathCallback(**OPTIONS)
    trainer(tmp_path, callback, max_steps=2).fit(Task(network(Checked)), Loader())
    assert callback.rdp is not None and len(callback.rdp.branches) == 3
    callback = ResidualDropPathCallback(**OPTIONS, module="model")
    trainer(tmp_path, callback, max_steps=2).fit(Apart(), Loader())
    assert callback.rdp is not None and len(callback.rdp.branches) == 3


def test_a_call_that_is_not_seen_is_warned_about(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, ResidualDropPathCallback(**OPTIONS), max_steps=2).fit(Apart(), Loader())
    (ours,) = (str(one.message) for one in caught if "has not called" in str(one.message))
    assert "not called Apart itself, which would show the branches of model.2." in ours
    assert "children of Apart are model, head" in ours


def test_a_wrong_path_names_the_children(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`module` must be the path.*got 'modle'; its children are model"):
        trainer(tmp_path, ResidualDropPathCallback(0.1, module="modle")).fit(Task(), Loader())


@pytest.fixture
def alone_in_a_group() -> Iterator[None]:
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


def test_distributed_data_parallel_is_told(tmp_path: Path, alone_in_a_group: None) -> None:
    expected, task = network(), Task()
    train_by_hand(expected)
    trainer(tmp_path, ResidualDropPathCallback(**OPTIONS), strategy="ddp", devices=1).fit(task, Loader())
    assert_same_bits(task.model, expected)


@pytest.mark.parametrize("strategy", ["ddp_find_unused_parameters_false", "static_graph"])
def test_distributed_data_parallel_that_was_told_otherwise(
    tmp_path: Path, strategy: Any, alone_in_a_group: None
) -> None:
    from lightning.pytorch.strategies import DDPStrategy

    got = "static_graph=True" if strategy == "static_graph" else "find_unused_parameters=False"
    if strategy == "static_graph":
        strategy = DDPStrategy(static_graph=True)
    with pytest.raises(ValueError, match=f"got {got}; use .*ddp_find_unused_parameters_true"):
        trainer(tmp_path, ResidualDropPathCallback(0.5), strategy=strategy, devices=1).fit(Task(), Loader())


def test_strategies_that_give_zeros_are_refused() -> None:
    from residualdroppath.integrations.lightning import allow_unused_parameters

    with pytest.raises(ValueError, match="does not go with FSDPStrategy.*ddp_find_unused_parameters_true"):
        allow_unused_parameters(type("FSDPStrategy", (), {})())


def test_the_other_package_of_the_same_library(tmp_path: Path) -> None:
    other = pytest.importorskip("pytorch_lightning", reason="needs `pytorch_lightning`")

    class OtherTask(other.LightningModule):
        __init__ = Task.__init__
        training_step, configure_optimizers = Task.training_step, Task.configure_optimizers

    OtherTask.__init__ = lambda self: (other.LightningModule.__init__(self), setattr(self, "model", network()))[0]
    expected, task = network(), OtherTask()
    train_by_hand(expected)
    callback = ResidualDropPathCallback(**OPTIONS)
    other.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    ).fit(task, Loader())
    assert_same_bits(task.model, expected)


@pytest.mark.full
@pytest.mark.parametrize("absent", [("lightning",), ("lightning", "pytorch_lightning")])
def test_either_package_is_enough_and_none_is_named(absent: tuple[str, ...]) -> None:
    if absent == ("lightning",):
        pytest.importorskip("pytorch_lightning", reason="needs `pytorch_lightning`")
    code = f"import sys\nsys.modules |= dict.fromkeys({absent!r})\nimport residualdroppath.integrations.lightning"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PREAMBLE + code], capture_output=True, text=True)
    assert done.returncode == len(absent) - 1, done.stderr
    if done.returncode:
        assert "pip install 'residualdroppath[lightning]'" in done.stderr


class HalfBatches(Loader):
    """Rows of one of two processes; a trainer puts no sampler in front of a loader that is not torch's."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rank = distributed.get_rank()
        for inputs, labels in super().__iter__():
            yield inputs[rank::2][:2], labels[rank::2][:2]


class BothHalves(Loader):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, labels in super().__iter__():
            yield inputs[:4], labels[:4]


def without_norms() -> nn.Sequential:
    """In float64, so that rows do not see each other and sums are the same to 1e-12."""
    model = network()
    for block in list(model)[1:4]:
        block.layers[1] = nn.Identity()  # pyright: ignore
    return model.double()


class Doubles(Task):
    def __init__(self) -> None:
        super().__init__(without_norms())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        return super().training_step((batch[0].double(), batch[1]), batch_idx)


def train_in_two_processes(folder: Path) -> None:
    """The script that Lightning starts again for the second process."""
    task, callback = Doubles(), ResidualDropPathCallback(**OPTIONS)
    of = trainer(folder, callback, strategy="ddp", devices=2, accumulate_grad_batches=2)
    of.fit(task, HalfBatches())
    assert callback.rdp is not None and callback.rdp.iteration == of.global_step
    torch.save(task.model.state_dict(), folder / f"{of.global_rank}.pt")


@pytest.mark.full
def test_two_processes_equal_one(tmp_path: Path) -> None:
    here = Path(__file__)
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join([*sys.path])}
    script = tmp_path / "script.py"
    script.write_text(
        f"{PREAMBLE}import sys, pathlib\nsys.path.insert(0, {str(here.parents[1])!r})\n"
        "from integrations.test_lightning import train_in_two_processes\n"
        f"if __name__ == '__main__':\n    train_in_two_processes(pathlib.Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    task = Doubles()
    trainer(tmp_path, ResidualDropPathCallback(**OPTIONS), accumulate_grad_batches=2).fit(task, BothHalves())
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(value, task.model.state_dict()[name], rtol=0, atol=1e-12)
