"""Contract 2: a deepcopy, an averaged copy and a pickle of the model are plain models."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from residualdroppath import ResidualDropPath

from .stepping import assert_equal, buffers_of, forward_backward
from .tiny_models import TinyModel, every_model, some_models


def pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def averaged(model: nn.Module) -> nn.Module:
    return AveragedModel(model).module


def copied_twice(model: nn.Module) -> nn.Module:
    return pickled(copy.deepcopy(copy.deepcopy(model)))


COPIES = [copy.deepcopy, pickled, saved, averaged, copied_twice]
every_copy = pytest.mark.parametrize("make_copy", COPIES, ids=lambda f: f.__name__)


@every_model
def test_a_copy_is_a_plain_model(tiny: TinyModel) -> None:
    """Also of a model whose branches are dropped, or whose norms are frozen, at the moment."""
    model, plain = tiny.build(), tiny.build()
    rdp = ResidualDropPath(model, 0.9, rate_over_depth="uniform", freeze="stop_gradient", frozen_norm="running")
    copies = {make_copy.__name__: make_copy(model) for make_copy in COPIES}
    rdp.step()
    assert rdp.kind == "dropped_part"
    copies |= {f"{make_copy.__name__} in a dropped_part iteration": make_copy(model) for make_copy in COPIES}

    expected = forward_backward(plain, tiny.inputs())
    for how, twin in copies.items():
        trace = forward_backward(twin.requires_grad_(True).train(), tiny.inputs())
        assert_equal(trace.output, expected.output, f"output of {how}")
        for name, gradient in expected.gradients.items():
            assert_equal(trace.gradients[name], gradient, f"gradient of {name} of {how}")
        assert_equal(buffers_of(twin), buffers_of(plain), f"buffers of {how}")
        assert list(twin.state_dict()) == list(plain.state_dict())


@some_models("timm_basic", "two_adds")
@every_copy
def test_a_copy_shares_nothing_with_the_model(tiny: TinyModel, make_copy: Callable[[nn.Module], nn.Module]) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", frozen_norm="batch")
    rdp.step()
    ours = {id(module) for module in model.modules()} | {id(p) for p in model.parameters()}
    twin = make_copy(model)
    assert ours.isdisjoint({id(module) for module in twin.modules()} | {id(p) for p in twin.parameters()})
    for module in twin.modules():
        forward = vars(module).get("forward")
        assert forward is None or forward.__self__ is module
    before = buffers_of(model)
    forward_backward(twin.requires_grad_(True).train(), tiny.inputs())
    assert_equal(buffers_of(model), before, "buffers")
    assert all(parameter.grad is None for parameter in model.parameters())


@some_models("own_add")
def test_a_copy_can_be_trained_by_the_method_in_its_turn(tiny: TinyModel) -> None:
    model = tiny.build()
    first = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    twin = copy.deepcopy(model)
    second = ResidualDropPath(twin, 0.5, rate_over_depth="uniform")
    traces = [forward_backward(m, tiny.inputs()) for m in (model, twin)]
    assert_equal(traces[0].output, traces[1].output, "output")
    assert first.plan == second.plan
    second.remove()
    assert all("forward" not in vars(m) or vars(m)["forward"].__self__ is m for m in twin.modules())
