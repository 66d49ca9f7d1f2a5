"""Contract 2: a deepcopy, an averaged copy and a pickle of the model are plain models."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from residualdroppath import ResidualDropPath

from .stepping import assert_close, assert_equal, buffers_of, forward_backward, sgd_step
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


DECAY = 0.9


def averaged_by_torch(model: nn.Module) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)


def averaged_by_timm(model: nn.Module) -> ModelEmaV3:
    return ModelEmaV3(model, decay=DECAY)


@some_models("timm_basic", "timm_vit", "two_adds")
@pytest.mark.parametrize("make", [averaged_by_torch, averaged_by_timm], ids=["torch", "timm"])
@pytest.mark.parametrize("start", ["drop_path", "dropped_part"])
@pytest.mark.pairs
def test_an_average_kept_through_training(tiny: TinyModel, make: Callable[[nn.Module], nn.Module], start: str) -> None:
    """Made while parts are dropped or frozen, it averages all, and runs as the plain model in both modes."""
    model, plain = tiny.build(), tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze="stop_gradient", frozen_norm="running")
    if start == "dropped_part":
        rdp.step()
    assert rdp.kind == start and rdp.plan.dropped
    average = make(model)
    updated = average.update_parameters if isinstance(average, AveragedModel) else average.update
    inner = average.module
    assert isinstance(inner, nn.Module)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for iteration in range(4):
        forward_backward(model, tiny.inputs(seed=iteration))
        sgd_step(model)
        updated(model)  # pyright: ignore
        for name, value in model.state_dict().items():
            if value.is_floating_point() and (iteration > 0 or make is averaged_by_timm):
                expected[name] = DECAY * expected[name] + (1 - DECAY) * value
            else:  # torch's first update is a copy
                expected[name] = value.clone()
        rdp.step()
    for name, value in inner.state_dict().items():
        if value.is_floating_point():
            assert_close(value, expected[name], name)
    assert any(not torch.equal(value, inner.state_dict()[name]) for name, value in model.state_dict().items())

    plain.load_state_dict(inner.state_dict())
    assert_equal(inner.eval()(tiny.inputs()), plain.eval()(tiny.inputs()), "output in evaluation")
    assert_equal(inner.train()(tiny.inputs()), plain.train()(tiny.inputs()), "output in training mode")
    assert_equal(buffers_of(inner), buffers_of(plain), "buffers")


@some_models("timm_basic", "two_adds")
def test_norms_of_an_average_can_be_recalibrated(tiny: TinyModel) -> None:
    """`update_bn` runs the average in training mode; nothing is dropped in it."""
    model, plain = tiny.build(), tiny.build()
    rdp = ResidualDropPath(model, 0.9, rate_over_depth="uniform", frozen_norm="running")
    loader: list[Tensor] = [tiny.inputs(seed=seed) for seed in range(3)]
    for _ in range(2):
        average = averaged_by_torch(model)
        update_bn(loader, average)
        update_bn(loader, plain)
        assert_equal(buffers_of(average.module), buffers_of(plain), "buffers")
        rdp.step()


@some_models("timm_basic", "timm_vit")
@pytest.mark.parametrize("kind", ["drop_path", "dropped_part"])
def test_a_pickle_can_be_made_between_forward_and_update(tiny: TinyModel, kind: str) -> None:
    """When rewritten forwards exist, and norms have forwards of their own."""
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze="stop_gradient", frozen_norm="running")
    if kind == "dropped_part":
        rdp.step()
    assert rdp.kind == kind
    forward_backward(model, tiny.inputs())
    for make_copy in (pickled, saved):
        twin, plain = make_copy(model), tiny.build()
        plain.load_state_dict(twin.state_dict())
        assert_equal(twin(tiny.inputs()), plain(tiny.inputs()), "output")
        assert_equal(buffers_of(twin), buffers_of(plain), "buffers")


@some_models("timm_basic", "timm_vit")
def test_a_pickle_can_be_loaded_without_this_package(tiny: TinyModel) -> None:
    model = tiny.build()
    ResidualDropPath(model, 0.5)
    assert b"residualdroppath" not in pickle.dumps(model)
