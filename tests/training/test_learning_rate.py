"""How the learning rate goes over training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from residualdroppath.training.learning_rate import Plateau, learning_rate
from residualdroppath.training.run import load_config_data, train
from residualdroppath.training.trainer import Trainer

from .tiny_runs import metrics, tiny


def rates(over_time: Any, **options: Any) -> list[float]:
    """Of 99 iterations of epochs of 10, 24 of them warming up."""
    return [learning_rate(0.5, 0.25, i, 99, over_time, epoch=(i - 1) // 10, **options) for i in range(1, 100)]


def test_learning_rate_rises_and_falls() -> None:
    found = rates("cosine")
    assert found[:24] == pytest.approx([0.5 * iteration / 25 for iteration in range(1, 25)])
    assert max(found) == found[24] == 0.5
    assert found[24:] == sorted(found[24:], reverse=True)
    assert found[61:63] == pytest.approx([0.5 * 0.5] * 2, abs=0.01)  # half-way through the cosine
    assert 0 < found[-1] < 0.5 * (torch.pi / 75) ** 2
    assert learning_rate(1.0, 0.0, 1, 10**6) == pytest.approx(1.0)


@pytest.mark.parametrize("over_time", ["cosine", "poly"])
def test_down_to_the_least(over_time: str) -> None:
    found = rates(over_time, min_lr=0.1)
    assert found[24] == 0.5 and 0.1 < found[-1] < 0.11 and min(found[24:]) == found[-1]


def test_power_of_what_is_left() -> None:
    found = rates("poly", power=2.0)
    assert found[24:] == pytest.approx([0.5 * ((100 - iteration) / 75) ** 2 for iteration in range(25, 100)])


def test_in_steps() -> None:
    found = rates("step", decay_epochs=(4,), decay_rate=0.5)
    assert found[24:] == [0.5] * 16 + [0.25] * 40 + [0.125] * 19
    found = rates("multistep", decay_epochs=(3, 5), decay_rate=0.1)
    assert found[24:] == pytest.approx([0.5] * 6 + [0.05] * 20 + [0.005] * 49)
    assert rates("constant")[24:] == [0.5] * 75


def test_warmup_by_iterations() -> None:
    config = tiny(lr=0.8, warmup_iterations=4, warmup=0.9, lr_over_time="step", decay_epochs=(2,), epochs=4)
    of = Trainer(config, load_config_data(config))
    found = []
    for iteration in range(12):
        of.iteration = iteration
        found.append(of.lr)
    assert found == pytest.approx([0.2, 0.4, 0.6] + [0.8] * 3 + [0.08] * 6)


def test_plateau_falls_after_its_patience_and_goes_on_where_it_was() -> None:
    def factors(plateau: Plateau, accuracies: list[float]) -> list[float]:
        found = []
        for accuracy in accuracies:
            plateau.note(accuracy)
            found.append(plateau.factor)
        return found

    accuracies = [0.5, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7]
    expected = [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2]
    assert factors(Plateau(0.5, 1, 0.2), accuracies) == expected
    for cut in range(len(accuracies)):
        first, second = Plateau(0.5, 1, 0.2), Plateau(0.5, 1, 0.2)
        before = factors(first, accuracies[:cut])
        second.load_state_dict(first.state_dict())
        assert before + factors(second, accuracies[cut:]) == expected


def test_plateau_goes_by_validation(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plateau, "note", lambda self, accuracy: self._holder.param_groups[0].update(lr=accuracy))
    train(tiny(lr_over_time="plateau", warmup=0, lr=1.0, epochs=3), tmp_path, on_epoch=lambda *epochs: None)
    rows = metrics(tmp_path)
    assert [row["lr"] for row in rows] == [1.0, rows[0]["validation_accuracy"], rows[1]["validation_accuracy"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_over_time": "step"}, "`decay_epochs` must be one number"),
        ({"lr_over_time": "multistep", "decay_epochs": (5, 3)}, "must be rising numbers"),
        ({"decay_epochs": (3,)}, "`decay_epochs` goes with `lr_over_time` step or multistep, got cosine"),
        ({"min_lr": 1.0, "lr": 0.5}, "`min_lr` must be at most `lr`, 0.5, got 1"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)
