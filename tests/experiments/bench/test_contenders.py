"""Contenders are what their names say: same weights and batch, same plans, same updates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from residualdroppath.errors import UserError
from residualdroppath.experiments.bench.contenders import NotOfThisModel, make_contender

CPU = torch.device("cpu")


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("name", ["rate_zero", "naive", "parameters", "stop_gradient", "sample"])
def test_all_start_alike_on_one_batch(tiny: Any, name: str) -> None:
    plain, other = (make_contender(which, tiny(), CPU) for which in ("plain", name))
    assert torch.equal(plain.images, other.images) and torch.equal(plain.labels, other.labels)
    assert all(map(torch.equal, weights(plain.model).values(), weights(other.model).values()))
    other.close()


def test_rate_zero_is_plain_training(tiny: Any) -> None:
    plain, other = (make_contender(which, tiny(), CPU) for which in ("plain", "rate_zero"))
    for _ in range(3):
        plain.iteration()
        other.iteration()
    assert all(map(torch.equal, weights(plain.model).values(), weights(other.model).values()))


@pytest.mark.parametrize("freeze", ["parameters"])
def test_the_naive_kind_makes_the_same_updates(tiny: Any, freeze: str) -> None:
    """What it computes too much it throws away."""
    naive, ours = (make_contender(which, tiny(), CPU) for which in ("naive", freeze))
    for contender in (naive, ours):
        contender.model.double()
        contender.images = contender.images.double()
    start = weights(ours.model)
    for _ in range(4):
        plan = ours.plan
        assert plan is not None and naive.plan is not None
        assert (naive.plan.kind, naive.plan.dropped) == (plan.kind, plan.dropped)
        naive.iteration()
        ours.iteration()
    for name, value in weights(ours.model).items():
        torch.testing.assert_close(value, weights(naive.model)[name], rtol=0, atol=1e-9, msg=name)
    assert sum(not torch.equal(value, start[name]) for name, value in weights(ours.model).items()) > 10


def test_every_contender_closes_plain(tiny: Any) -> None:
    plain = make_contender("plain", tiny(), CPU)
    for name in ("rate_zero", "naive", "parameters", "stop_gradient", "sample"):
        other = make_contender(name, tiny(), CPU)
        other.close()
        assert all(parameter.requires_grad for parameter in other.model.parameters())
        assert torch.equal(other.model(other.images), plain.model(plain.images)), name


def test_drop_path_of_the_libraries(tiny: Any) -> None:
    with pytest.raises(NotOfThisModel, match="not a network of timm"):
        make_contender("timm", tiny(), CPU)
    with pytest.raises(NotOfThisModel, match="not a network of torchvision"):
        make_contender("torchvision", tiny(), CPU)
    with pytest.raises(NotOfThisModel, match="not a network of timm"):
        make_contender("timm", tiny(model="torchvision/resnet18"), CPU)
    with pytest.raises(NotOfThisModel, match="no stochastic_depth_prob"):
        make_contender("torchvision", tiny(model="torchvision/resnet18"), CPU)
    with pytest.raises(NotOfThisModel, match="no drop_path_rate"):
        make_contender("timm", tiny(model="vgg11"), CPU)
    convnext = make_contender("torchvision", tiny(model="torchvision/convnext_tiny", rate=0.3, image_size=32), CPU)
    assert max(getattr(module, "p", 0.0) for module in convnext.model.modules()) == pytest.approx(0.3)
    resnet = make_contender("timm", tiny(model="resnet18", rate=0.3), CPU)
    assert max(getattr(module, "drop_prob", 0.0) for module in resnet.model.modules()) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("torchvision/no_such", "after torchvision/, got 'no_such'"),
        ("huggingface/bert", "must be NAME or timm/NAME, torchvision/NAME or transformers/CLASS"),
        ("mobilenetv1_100", "No residual branch"),
    ],
)
def test_mistakes_are_told(tiny: Any, model: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_contender("parameters", tiny(model=model), CPU)


@pytest.mark.parametrize(
    "options",
    [{"dtype": "bf16"}, {"channels_last": True}, {"optimizer": "adamw"}, {"optimizer": "adamw", "fused": True}],
)
@pytest.mark.parametrize("name", ["plain", "naive", "parameters", "sample"])
def test_every_way_of_training_trains(tiny: Any, name: str, options: dict[str, Any]) -> None:
    contender = make_contender(name, tiny(**options), CPU)
    before = weights(contender.model)
    for _ in range(2):
        contender.iteration()
    changed = sum(not torch.equal(value, before[key]) for key, value in weights(contender.model).items())
    assert changed > len(before) // 2
    contender.close()
