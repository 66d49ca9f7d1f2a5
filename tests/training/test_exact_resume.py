"""A run that ends after any iteration, in the middle of a cycle or an epoch, goes on to the very same bits."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data.files import encoded, write_image_folder
from residualdroppath.data import image_sources
from residualdroppath.errors import Stopped, UserError
from residualdroppath.training import making, run
from residualdroppath.training.processes import Processes
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import train
from residualdroppath.training.run_folder import RunFolder
from residualdroppath.training.saving import SavingTimes
from residualdroppath.training.stopping import StopRequest
from residualdroppath.training.trainer import Trainer

from .test_resume import equal, with_dropout
from .test_training_images import EVERYTHING
from .tiny_runs import final_state, manifests, metrics, tiny

# Three epochs, each of as many iterations as there are in `PER_EPOCH`.
RECIPES: dict[str, dict[str, Any]] = {
    "dropout": {"drop_path_rate": 0.5, "mirror": True, "crop_padding": 1},
    "cycle on one batch": {"drop_path_rate": 0.5, "cycle": "same_batch", "schedule": (2, 1)},
    "union": {"drop_path_rate": 0.5, "schedule": (4, 1), "trains": "union"},
    "random": {"drop_path_rate": 0.5, "schedule": "random", "rate_over_time": "warmup"},
    "fp16": {"drop_path_rate": 0.5, "amp": "fp16", "accumulation": 2, "clip_grad": 0.1},
    "plain": {"method": "plain", "optimizer": "adamw", "lr": 0.01},
    "augmented, averaged": {
        **EVERYTHING, "drop_path_rate": 0.5, "mix_mode": "elem", "ema": 0.9, "use": "ema", "recalibrate_norms": 2,
        "lr_over_time": "plateau", "patience": 0, "optimizer": "lookahead_lamb", "lr": 0.01,
    },
    "best": {"drop_path_rate": 0.5, "use": "best", "ema": 0.5, "ema_warmup": True, "recalibrate_norms": 1},
}  # fmt: skip
PER_EPOCH = {"cycle on one batch": 9}
QUICK = ("dropout", "cycle on one batch", "fp16", "augmented, averaged")


@pytest.fixture(autouse=True)
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "write_run_page", lambda *args: None)  # most of the time of a tiny run


def stopped(config: TrainConfig, out: Path, monkeypatch: pytest.MonkeyPatch, *, at: int, resume: bool = False) -> None:
    """A run that SIGTERM ends after iteration `at`."""

    def due(self: SavingTimes, iteration: int) -> bool:
        self.signal = signal.SIGTERM if iteration == at else 0
        return iteration == at

    with monkeypatch.context() as patch:
        patch.setattr(SavingTimes, "due", due)
        with pytest.raises(Stopped, match=f"stopped by SIGTERM: iteration {at} is kept; add --resume"):
            train(config, out, resume=resume)
    assert manifests(out)[-1] == at


def require_same(ours: Path, theirs: Path) -> None:
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    assert equal(final_state(ours), final_state(theirs))
    assert metrics(ours) == metrics(theirs)


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in RECIPES]
)
def test_stopped_after_any_iteration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    """In the first epoch, in the second, after its last iteration, and in the last."""
    if recipe == "dropout":
        monkeypatch.setattr(making, "make_classifier", with_dropout)
    config = tiny(epochs=3, **RECIPES[recipe])
    whole = train(config, tmp_path / "whole")
    per_epoch = PER_EPOCH.get(recipe, 3)
    for at in (1, per_epoch + 2, 2 * per_epoch, 3 * per_epoch - 1):
        stopped(config, tmp_path / "cut", monkeypatch, at=at, resume=at > 1)
    cut = train(config, tmp_path / "cut", resume=True)
    require_same(tmp_path / "cut", tmp_path / "whole")
    assert {**whole, "train_seconds": 0} == {**cut, "train_seconds": 0}


def test_images_that_are_decoded_by_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader draws from the generator that dropout draws from."""
    monkeypatch.setattr(image_sources, "MEMORY_LIMIT", 0)
    monkeypatch.setattr(making, "make_classifier", with_dropout)
    write_image_folder(tmp_path / "set")
    config = tiny(
        data=str(tmp_path / "set"), train_size=None, batch_size=2, validation_fraction=0.34, drop_path_rate=0.5
    )
    train(config, tmp_path / "whole")
    stopped(config, tmp_path / "cut", monkeypatch, at=4)
    train(config, tmp_path / "cut", resume=True)
    require_same(tmp_path / "cut", tmp_path / "whole")


def test_checkpoints_by_number_and_at_the_end_of_epochs(tmp_path: Path) -> None:
    train(tiny(checkpoint_every=2, keep_checkpoints=9), tmp_path)
    assert manifests(tmp_path) == [2, 3, 4, 6]


def test_checkpoints_by_clock(tmp_path: Path) -> None:
    train(tiny(checkpoint_minutes=1e-9, keep_checkpoints=9), tmp_path / "often")
    train(tiny(checkpoint_minutes=60, keep_checkpoints=9), tmp_path / "seldom")
    assert manifests(tmp_path / "often") == [1, 2, 3, 4, 5, 6] and manifests(tmp_path / "seldom") == [3, 6]


def test_checkpoints_do_not_decide_the_result_and_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny(), tmp_path / "whole")
    stopped(tiny(), tmp_path / "cut", monkeypatch, at=2)
    train(tiny(checkpoint_every=1, keep_checkpoints=1), tmp_path / "cut", resume=True)
    assert manifests(tmp_path / "cut")[-1] == 6
    require_same(tmp_path / "cut", tmp_path / "whole")


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iteration = Trainer.train_iteration

    def diverging(self: Trainer, *batch: Tensor) -> tuple[Tensor, Tensor]:
        found = iteration(self, *batch)
        if self.iteration == 2:
            next(self.model.parameters()).data[0] = -torch.inf
        return found

    monkeypatch.setattr(Trainer, "train_iteration", diverging)
    with pytest.raises(UserError, match="weights are no longer finite .epoch 0, by iteration 2"):
        train(tiny(checkpoint_every=1), tmp_path)
    assert manifests(tmp_path) == [1]


@pytest.mark.parametrize("amp", ["none", "fp16"])
def test_gradients_are_clipped(amp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the norm given, before the update; scaled ones as they would be without a scale."""
    config = tiny(method="plain", amp=amp, clip_grad=0.01)
    of = Trainer(config, run.load_config_data(config))
    norms: list[float] = []
    of.optimizer.register_step_pre_hook(
        lambda *_: norms.append(float(nn.utils.get_total_norm([p.grad for p in of.model.parameters()])))  # pyright: ignore
    )
    of.train_epoch(1, lambda *progress: None)
    assert norms == pytest.approx([0.01] * 3, rel=1e-3)


class OfTwo(Processes):
    """One of two, of which the other has been sent a signal."""

    def __init__(self) -> None:
        self.count = 2

    def largest(self, *values: float) -> list[float]:
        return [max(values[0], signal.SIGUSR1), *values[1:]]


def test_several_processes_look_together_at_some_iterations_alone() -> None:
    saving = SavingTimes(tiny(checkpoint_every=7), OfTwo(), StopRequest())
    assert [iteration for iteration in range(1, 22) if saving.due(iteration)] == [7, 10, 14, 20, 21]
    assert saving.signal == signal.SIGUSR1


def test_damaged_final_weights_are_not_used(tmp_path: Path) -> None:
    train(tiny(epochs=1), tmp_path)
    assert RunFolder(tmp_path).final_weights() is not None
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        RunFolder(tmp_path).final_weights()


LENGTHENED = {"lr_over_time": "constant", "warmup": 0, "drop_path_rate": 0.5}


def test_run_that_has_ended_is_made_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny(**LENGTHENED, epochs=2), tmp_path / "longer")
    stopped(tiny(**LENGTHENED, epochs=3), tmp_path / "longer", monkeypatch, at=7, resume=True)
    assert not (tmp_path / "longer/result.json").exists()
    assert RunFolder(tmp_path / "longer").weights_file().stem == "iteration_00000007"  # not those of fewer epochs
    result = train(tiny(**LENGTHENED, epochs=3), tmp_path / "longer", resume=True)
    train(tiny(**LENGTHENED, epochs=3), tmp_path / "whole")
    assert result["epochs"] == 3 and result["iterations"] == 9
    require_same(tmp_path / "longer", tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"lr_over_time": "cosine"}, "`lr_over_time` cosine (not constant)"),
        ({"warmup": 0.1}, "`warmup` 0.1 (not 0)"),
        ({"rate_over_time": "late"}, "`rate_over_time` late (not constant)"),
        ({"iterations": 5}, "`iterations`"),
    ],
)
def test_run_that_goes_by_its_length_is_not_made_longer(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    config = tiny(**{**LENGTHENED, **options})
    result = train(config, tmp_path)
    with pytest.raises(UserError) as error:
        train(config.model_copy(update={"epochs": 3}), tmp_path, resume=True)
    assert f"epochs (2 there, 3 now), and the run cannot be made longer: it goes by {reason}" in str(error.value)
    assert train(config, tmp_path, resume=True) == result


def test_run_is_not_made_shorter(tmp_path: Path) -> None:
    train(tiny(**LENGTHENED, epochs=2), tmp_path)
    with pytest.raises(UserError, match=r"differs in epochs \(2 there, 1 now\)"):
        train(tiny(**LENGTHENED, epochs=1), tmp_path, resume=True)


def test_other_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny()
    stopped(config, tmp_path, monkeypatch, at=2)
    data = run.load_config_data(config)
    for other, told in (
        (run.load_config_data(tiny(train_size=95)), "images"),
        (run.load_config_data(tiny(split_seed=1)), "content of the train part, content of the validation part"),
    ):
        with pytest.raises(UserError, match=f"keeps its data; those of .* differ in {told}"):
            train(config, tmp_path, data=other, resume=True)
    assert train(config, tmp_path, data=data, resume=True)["iterations"] == 6


@pytest.mark.parametrize("kept", [4 * 2**30, 0])
def test_other_files_of_a_folder_are_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Held in memory or not, by content or by names and sizes; a moved folder is the same."""
    monkeypatch.setattr(image_sources, "MEMORY_LIMIT", kept)
    write_image_folder(tmp_path / "set")
    config = {"train_size": None, "batch_size": 4, "epochs": 2, "validation_fraction": 0.34}
    stopped(tiny(data=str(tmp_path / "set"), **config), tmp_path / "out", monkeypatch, at=1)
    changed = sorted((tmp_path / "set/train").rglob("*.*"))[0]
    before = changed.read_bytes()
    changed.write_bytes(encoded(np.zeros((10, 10, 3), np.uint8)))
    with pytest.raises(UserError, match="content of the (train|validation) part"):
        train(tiny(data=str(tmp_path / "set"), **config), tmp_path / "out", resume=True)
    changed.write_bytes(before)
    assert train(tiny(data=str(tmp_path / "set"), **config), tmp_path / "out", resume=True)["epochs"] == 2
