"""What decays, optimizers by name, and what they take."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from residualdroppath.errors import UserError
from residualdroppath.models.small_resnet import SmallResNet
from residualdroppath.training.optimizer import make_optimizer, parameter_groups
from residualdroppath.training.recipe import Recipe
from residualdroppath.training.run import load_config_data
from residualdroppath.training.trainer import Trainer

from .tiny_runs import tiny


def made(model: nn.Module | None = None, **options: Any) -> torch.optim.Optimizer:
    return make_optimizer(nn.Linear(2, 2) if model is None else model, Recipe.model_validate(options))


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
    optimizer = made(optimizer=name, lr=0.3, weight_decay=0.2)
    assert isinstance(optimizer, kind) and {group["lr"] for group in optimizer.param_groups} == {0.3}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.0]
    assert name != "sgd" or (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.9, True)


def test_arguments_of_our_own() -> None:
    assert made(momentum=0.5).defaults["momentum"] == 0.5
    assert made(momentum=0).defaults["nesterov"] is False
    adamw = made(optimizer="adamw", betas=(0.8, 0.9), eps=1e-6).defaults
    assert adamw["betas"] == (0.8, 0.9) and adamw["eps"] == 1e-6


@pytest.mark.parametrize("name", ["lamb", "Lion", "muon", "lookahead_adamw", "madgradw", "adafactor"])
def test_names_of_timm(name: str) -> None:
    """Some of them are built, and train by the method without a warning; `weight_decay` is for matrices alone."""
    config = tiny(optimizer=name, lr=0.001, weight_decay=0.1, drop_path_rate=0.5)
    of = Trainer(config, load_config_data(config))
    assert type(of.optimizer).__name__.lower() in (name.lower(), "lookahead", "madgrad")
    decays = {p.dim() for group in of.optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decays and min(decays) >= 2
    before = [parameter.clone() for parameter in of.model.parameters()]
    of.train_epoch(1, lambda *progress: None)
    assert any(not torch.equal(ours, was) for ours, was in zip(of.model.parameters(), before, strict=True))


def test_arguments_of_timm() -> None:
    optimizer = made(optimizer="lamb", betas=(0.8, 0.9), eps=1e-5, weight_decay=0.0)
    assert optimizer.defaults["betas"] == (0.8, 0.9) and optimizer.defaults["eps"] == 1e-5
    assert made(optimizer="rmsprop", momentum=0.5).defaults["momentum"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (0.9, 0.9)}, "`betas` must be left out, `optimizer` sgd has none"),
        ({"optimizer": "adamw", "momentum": 0.9}, "`momentum` must be left out, `optimizer` adamw has none"),
        ({"optimizer": "adamw", "betas": (0.9,)}, "`betas` must be 2 numbers for `optimizer` adamw, got 1"),
        ({"optimizer": "lion", "eps": 0.1}, "`eps` must be left out, `optimizer` lion has none"),
        ({"optimizer": "adan", "betas": (0.9, 0.9)}, "`betas` must be 3 numbers for `optimizer` adan, got 2"),
        (
            {"layer_decay": 0.5},
            "`layer_decay` must be left out: by timm all that learns in small_resnet is of one group",
        ),
    ],
)
def test_what_an_optimizer_does_not_have(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        made(SmallResNet(8, 2), **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("adamv", "a name that timm has; did you mean adam"), ("adahessian", "those of second order are not supported")],
)
def test_names_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate({"optimizer": name})


@pytest.mark.parametrize("name", ["sgd", "lamb"])
def test_layers_learn_more_slowly_the_further_from_the_head(name: str) -> None:
    model = timm.create_model("resnet10t", num_classes=3)
    optimizer = made(model, optimizer=name, layer_decay=0.5, lr=0.1)
    scales = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    of = {name: scales[id(p)] for name, p in model.named_parameters()}
    assert of["fc.weight"] == 1.0 > of["layer4.0.conv1.weight"] > of["layer1.0.conv1.weight"] > of["conv1.0.weight"]

    config = tiny(model="resnet10t", image_size=32, optimizer=name, layer_decay=0.5, train_size=20, batch_size=10)
    trainer = Trainer(config, load_config_data(config))
    trainer.train_iteration(*next(iter(trainer.batches(1))))
    rate = trainer.last_lr
    assert all(group["lr"] == rate * group["lr_scale"] for group in trainer.optimizer.param_groups) and rate > 0
