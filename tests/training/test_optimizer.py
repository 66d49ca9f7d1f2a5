"""What decays, and how the learning rate goes over training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from residualdroppath.models.small_resnet import SmallResNet
from residualdroppath.training.learning_rate import learning_rate
from residualdroppath.training.optimizer import make_optimizer, parameter_groups
from residualdroppath.training.recipe import Recipe


def test_only_matrices_and_kernels_decay() -> None:
    model = SmallResNet(8, 2)
    model.stem[0].weight.requires_grad_(False)
    decays, others = parameter_groups(model, 0.1)
    assert (decays["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.dim() >= 2 for parameter in decays["params"])
    assert all(parameter.dim() == 1 for parameter in others["params"])
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert {id(p) for p in decays["params"] + others["params"]} == trained
    assert len(decays["params"] + others["params"]) == len(trained)


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_optimizers_of_a_recipe(name: str, kind: type[torch.optim.Optimizer]) -> None:
    made = make_optimizer(nn.Linear(2, 2), Recipe.model_validate({"optimizer": name, "lr": 0.3, "weight_decay": 0.2}))
    assert isinstance(made, kind) and {group["lr"] for group in made.param_groups} == {0.3}
    assert [group["weight_decay"] for group in made.param_groups] == [0.2, 0.0]
    assert name != "sgd" or (made.defaults["momentum"], made.defaults["nesterov"]) == (0.9, True)


def test_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(0.5, 0.25, iteration, 99) for iteration in range(1, 100)]
    assert rates[:24] == pytest.approx([0.5 * iteration / 25 for iteration in range(1, 25)])
    assert max(rates) == rates[24] == 0.5
    assert rates[62] == pytest.approx(0.5 * 0.5 * (1 + math.cos(math.pi * 0.38 / 0.75)))
    assert all(later < earlier for earlier, later in zip(rates[24:], rates[25:], strict=False)) and rates[-1] > 0


def test_no_warm_up_starts_at_the_largest() -> None:
    assert learning_rate(1.0, 0.0, 1, 10**6) == pytest.approx(1.0)
