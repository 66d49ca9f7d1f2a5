"""Contracts 1 and 2: rates 0, evaluation and the removed method are the plain model, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from residualdroppath import ResidualDropPath

from .stepping import assert_equal, buffers_of, forward_backward, parameters_of
from .tiny_models import TinyModel, every_model, some_models

PHASES = {"drop_path": 0, "dropped_part": 1}
every_phase = pytest.mark.parametrize("steps", PHASES.values(), ids=PHASES.keys())
OPTIONS: dict[str, dict[str, Any]] = {
    "parameters": {"frozen_norm": "running"},
    "sample": {"freeze": "stop_gradient", "granularity": "sample", "frozen_norm": "batch"},
}


def attributes(model: nn.Module) -> list[dict[str, Any]]:
    """What hangs on each module, down to the flags of parameters and the hooks."""
    return [
        {
            **{name: dict(value) if isinstance(value, dict) else value for name, value in vars(module).items()},
            "flags": [parameter.requires_grad for parameter in module.parameters()],
        }
        for module in model.modules()
    ]


def train(model: nn.Module, tiny: TinyModel, rdp: ResidualDropPath | None = None) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    for iteration in range(3):
        forward_backward(model, tiny.inputs(seed=iteration), seed=iteration)
        optimizer.step()
        optimizer.zero_grad()
        if rdp is not None:
            rdp.step()


@every_model
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.pairs
def test_rates_of_zero_are_plain_training(tiny: TinyModel, options: dict[str, Any]) -> None:
    model, plain = tiny.build(), tiny.build()
    start = parameters_of(model)
    rdp = ResidualDropPath(model, drop_path_rate=0, **options)
    train(model, tiny, rdp)
    train(plain, tiny)
    assert rdp.kind == "drop_path" and rdp.plan.dropped == () and rdp.iteration == 3
    assert_equal(parameters_of(model), parameters_of(plain), "parameters")
    assert_equal(buffers_of(model), buffers_of(plain), "buffers")
    assert not any(torch.equal(value, start[name]) for name, value in parameters_of(model).items())


@every_model
@every_phase
@pytest.mark.pairs
def test_evaluation_is_the_untouched_model(tiny: TinyModel, steps: int) -> None:
    model, plain = tiny.build(), tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", frozen_norm="batch")
    for _ in range(steps):
        rdp.step()
    train_output = model(tiny.inputs())
    plain.load_state_dict(model.state_dict())
    assert_equal(model.eval()(tiny.inputs()), plain.eval()(tiny.inputs()), "output")
    if rdp.kind == "drop_path" and not tiny.draws_random_numbers:
        plain.train()
        assert not torch.equal(train_output, plain(tiny.inputs()))  # in training it does differ


@every_model
def test_state_dict_is_that_of_the_untouched_model(tiny: TinyModel) -> None:
    model, plain = tiny.build(), tiny.build()
    names = [name for name, _ in plain.named_modules()]
    rdp = ResidualDropPath(model, 0.5, frozen_norm="running")
    for _ in range(3):
        forward_backward(model, tiny.inputs())
        assert list(model.state_dict()) == list(plain.state_dict())
        assert [name for name, _ in model.named_modules()] == names
        plain.load_state_dict(model.state_dict(), strict=True)
        rdp.step()


@every_model
@every_phase
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.pairs
def test_remove_leaves_the_model_as_it_was(tiny: TinyModel, steps: int, options: dict[str, Any]) -> None:
    model = tiny.build()
    next(model.parameters()).requires_grad_(False)
    before = attributes(model)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **options)
    assert attributes(model) != before
    for _ in range(steps):
        rdp.step()
    model(tiny.inputs())
    rdp.remove()
    rdp.remove()  # a second time does nothing
    assert attributes(model) == before


@some_models("own_add")
def test_a_forward_that_the_user_has_set_is_kept(tiny: TinyModel) -> None:
    model = tiny.build()
    block = model.get_submodule("blocks.0")
    calls: list[int] = []
    original = block.forward
    mine = lambda x: (calls.append(1), original(x))[1]  # noqa: E731
    block.forward = mine
    rdp = ResidualDropPath(model, 0.5)
    model.eval()(tiny.inputs())
    assert calls == [1]
    rdp.remove()
    assert block.forward is mine


@some_models("own_add")
def test_what_others_wrapped_around_the_forward_stays(tiny: TinyModel) -> None:
    model, plain = tiny.build(), tiny.build()
    block = model.get_submodule("blocks.2")
    rdp = ResidualDropPath(model, 0.9, rate_over_depth="uniform")
    inner = block.forward
    outer = lambda x: inner(x)  # noqa: E731
    block.forward = outer
    rdp.remove()
    assert block.forward is outer
    assert_equal(model(tiny.inputs()), plain(tiny.inputs()), "output")


@pytest.mark.parametrize("call", ["step", "refresh", "paused", "load_state_dict"])
@some_models("own_add")
def test_after_remove_nothing_can_be_asked_for(tiny: TinyModel, call: str) -> None:
    rdp = ResidualDropPath(tiny.build())
    state = rdp.state_dict()
    rdp.remove()
    with pytest.raises(RuntimeError, match=f"`{call}\\(\\)` was called after `remove\\(\\)`"):
        if call == "paused":
            rdp.paused().__enter__()
        elif call == "load_state_dict":
            rdp.load_state_dict(state)
        else:
            getattr(rdp, call)()
