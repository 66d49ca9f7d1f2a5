"""Cycles on one batch, seeds by purpose, iterations in place of epochs, sparse validation, and controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from residualdroppath.data.images import Split
from residualdroppath.errors import UserError
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.trainer import Trainer

from .tiny_runs import interrupted, metrics, tiny


def trainer_of(**options: Any) -> Trainer:
    config = tiny(**options)
    return Trainer(config, load_config_data(config))


def seen_by(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Kind of each iteration of an epoch, and the batch that it was made on, as a number."""
    seen: list[tuple[str, int]] = []
    numbers: dict[int, int] = {}
    iteration = Trainer.train_iteration

    def noted(self: Trainer, images: torch.Tensor, labels: torch.Tensor) -> Any:
        seen.append((self.kind, numbers.setdefault(id(images), len(numbers))))
        keep.append(images)
        return iteration(self, images, labels)

    keep: list[torch.Tensor] = []
    monkeypatch.setattr(Trainer, "train_iteration", noted)
    trainer.train_epoch(1, lambda *progress: None)
    return seen


def test_whole_cycle_on_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(cycle="same_batch", schedule=(2, 1), drop_path_rate=0.5)
    cycle = ["drop_path", "drop_path", "dropped_part"]
    assert seen_by(trainer, monkeypatch) == [(kind, batch) for batch in range(3) for kind in cycle]
    assert trainer.total_iterations == 18 and trainer.trunk_updates == 6


def test_next_batch_for_each_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(drop_path_rate=0.5)
    assert seen_by(trainer, monkeypatch) == [("drop_path", 0), ("dropped_part", 1), ("drop_path", 2)]


@pytest.mark.parametrize("method", ["plain", "drop_path"])
def test_cycle_of_one_kind_is_one_iteration(method: str) -> None:
    assert trainer_of(method=method, cycle="same_batch").total_iterations == 6


def test_same_batch_needs_a_length() -> None:
    with pytest.raises(ValueError, match="fixed length"):
        tiny(cycle="same_batch", schedule="random")


def test_iterations_in_place_of_epochs(tmp_path: Path) -> None:
    result = train(tiny(iterations=7, cycle="same_batch", drop_path_rate=0.5), tmp_path)
    assert (result["iterations"], result["epochs"], result["trunk_updates"]) == (7, 2, 4)
    assert [row["iteration"] for row in metrics(tmp_path)] == [6, 7]
    assert trainer_of(iterations=7).lr > 0


def test_resumed_run_knows_the_updates_of_its_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(epochs=3, drop_path_rate=0.5)
    interrupted(config, tmp_path, monkeypatch, after=2)
    assert train(config, tmp_path, resume=True)["trunk_updates"] == 5


def test_validation_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    train(tiny(epochs=5, validate_every=2), tmp_path)
    assert ["validation_accuracy" in row for row in metrics(tmp_path)] == [False, True, False, True, True]
    assert (tmp_path / "index.html").read_text().count("<td>-</td>") == 6


def test_without_test_the_test_set_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(epochs=1, test=False)
    data = load_config_data(config)
    evaluate = Trainer.evaluate

    def noted(self: Trainer, split: Split) -> Any:
        assert split is data.validation
        return evaluate(self, split)

    monkeypatch.setattr(Trainer, "evaluate", noted)
    result = train(config, tmp_path, data=data)
    assert "test_accuracy" not in result and "test_loss" not in result
    assert "validation accuracy" in (tmp_path / "index.html").read_text()


def first_batch(trainer: Trainer) -> torch.Tensor:
    return next(iter(trainer.batches(1)))[0]


def plans(trainer: Trainer) -> list[Any]:
    assert trainer.rdp is not None
    found = []
    for _ in range(10):
        found.append(trainer.rdp.plan.dropped)
        trainer.rdp.step()
    return found


@pytest.mark.parametrize("purpose", ["init_seed", "order_seed", "plan_seed"])
def test_seeds_by_purpose(purpose: str) -> None:
    usual, other = (trainer_of(seed=0, drop_path_rate=0.5, **{purpose: seed}) for seed in (None, 1))
    same = {
        "init_seed": torch.equal(next(usual.model.parameters()), next(other.model.parameters())),
        "order_seed": torch.equal(first_batch(usual), first_batch(other)),
        "plan_seed": plans(usual) == plans(other),
    }
    assert same == {name: name != purpose for name in same}


def test_seeds_of_all_purposes_are_the_seed() -> None:
    config = {"init_seed": 4, "order_seed": 4, "plan_seed": 4, "drop_path_rate": 0.5}
    one, other = trainer_of(seed=4, drop_path_rate=0.5), trainer_of(seed=0, **config)
    for trainer in (one, other):
        trainer.train_epoch(1, lambda *progress: None)
    assert all(map(torch.equal, one.model.state_dict().values(), other.model.state_dict().values()))


def test_learning_rate_of_dropped_parts() -> None:
    usual, doubled = (trainer_of(dropped_part_lr=factor, drop_path_rate=0.5) for factor in (1.0, 2.0))
    for iteration in range(2):
        assert doubled.lr == pytest.approx(usual.lr * (1 + iteration))
        for trainer in (usual, doubled):
            trainer.train_iteration(*next(iter(trainer.batches(1))))


def test_freezing_only_drops_nothing_and_freezes_as_usual() -> None:
    """Its drop_path iterations are plain ones, its dropped_part iterations those of the method."""
    control, plain = trainer_of(method="freezing_only", drop_path_rate=0.5), trainer_of(method="plain")
    batch = next(iter(plain.batches(1)))
    for trainer in (control, plain):
        trainer.model.train()
        trainer.train_iteration(*batch)
    assert all(map(torch.equal, control.model.state_dict().values(), plain.model.state_dict().values()))
    assert control.kind == "dropped_part" and control.rdp is not None
    dropped = control.rdp.plan.dropped
    learning = {id(p) for branch in control.rdp.branches if branch.name in dropped for p in branch.parameters()}
    before = {name: parameter.clone() for name, parameter in control.model.named_parameters()}
    control.train_iteration(*batch)
    for name, parameter in control.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) not in learning), name


def test_freezing_only_trains_without_warnings() -> None:
    trainer = trainer_of(method="freezing_only", iterations=20, freeze="stop_gradient", drop_path_rate=0.7)
    for epoch in range(1, trainer.epochs + 1):
        trainer.train_epoch(epoch, lambda *progress: None)
    assert trainer.trunk_updates == 10


def test_drop_path_at_effective_rates() -> None:
    config: dict[str, Any] = {"depth": 14, "drop_path_rate": 0.2}
    ours, control = (
        trainer_of(method=method, **config).rdp for method in ("residual_drop_path", "drop_path_effective")
    )
    assert ours is not None and control is not None and control.options.schedule == (1, 0)
    assert [branch.drop_rate for branch in control.branches] == pytest.approx(
        [branch.effective_rate for branch in ours.branches]
    )
    assert control.branches[-1].drop_rate > 0.2


def test_effective_rate_of_one_is_told() -> None:
    with pytest.raises(UserError, match=r"must be in \[0, 1\), got 1"):
        trainer_of(method="drop_path_effective", include=("blocks.2",))


@pytest.mark.parametrize("name", ["iterations", "cycle", "test"])
def test_what_a_comparison_does_not_vary(name: str) -> None:
    from residualdroppath.experiments.compare.config import CompareConfig

    values = {"iterations": 5, "cycle": "same_batch", "test": False}
    with pytest.raises(ValueError, match=f"`{name}` must keep its default"):
        CompareConfig.model_validate({name: values[name]})
    assert TrainConfig.model_validate({name: values[name]})
