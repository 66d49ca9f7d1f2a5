"""What training on an accelerator does, as far as it can be held to without one: no waiting, scaling, layouts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residualdroppath import ResidualDropPath

from .stepping import assert_equal, forward_backward, parameters_of
from .tiny_models import TRUNK, TinyModel, some_models

EVERY_OPTION = pytest.mark.parametrize(
    "options",
    [
        {"freeze": "parameters"},
        {"freeze": "stop_gradient"},
        {"freeze": "stop_gradient", "granularity": "sample"},
        {"frozen_norm": "running", "schedule": (1, 2)},
    ],
    ids=str,
)


@EVERY_OPTION
@some_models("timm_basic", "timm_vit", "own_add", "projection")
@pytest.mark.pairs
def test_the_host_never_waits_for_the_device(tiny: TinyModel, options: dict[str, Any]) -> None:
    """On the meta device there are no values: `.item()`, `if tensor:` and masks read by the host raise there."""
    model = tiny.build().to("meta")
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **options)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    kinds = set()
    for _ in range(8):
        kinds.add(rdp.kind)
        model(tiny.inputs().to("meta")).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        rdp.step()
    assert kinds == {"drop_path", "dropped_part"}


def test_the_meta_device_would_tell() -> None:
    class Waits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(RuntimeError, match="meta"):
        Waits()(torch.zeros(3, device="meta"))


@EVERY_OPTION
@some_models("timm_basic", "two_adds")
@pytest.mark.pairs
def test_frozen_under_a_gradient_scaler(tiny: TinyModel, options: dict[str, Any]) -> None:
    """Also where the scaler skips the update because a gradient is not finite."""
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    owners = tiny.owners(model)
    for iteration in range(6):
        learners = {TRUNK, *rdp.plan.kept} if rdp.kind == "drop_path" else set(rdp.plan.dropped)
        if rdp.options.granularity == "sample" and rdp.kind == "drop_path":
            learners |= set(rdp.plan.dropped)
        before = parameters_of(model)
        loss = model(tiny.inputs(iteration)).square().mean()
        scaler.scale(loss * (float("inf") if iteration == 3 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        for name, value in parameters_of(model).items():
            if owners[name] not in learners:
                assert_equal(value, before[name], name)
        changed = any(not torch.equal(value, before[name]) for name, value in parameters_of(model).items())
        assert changed == (iteration != 3)
        rdp.step()
    assert scaler.get_scale() == 8.0


@EVERY_OPTION
@some_models("timm_basic", "torchvision_resnet", "timm_bottleneck_d")
@pytest.mark.pairs
def test_channels_last_changes_nothing_but_the_layout(tiny: TinyModel, options: dict[str, Any]) -> None:
    networks = [tiny.build(), tiny.build().to(memory_format=torch.channels_last)]  # pyright: ignore
    rdps = [ResidualDropPath(network, 0.5, rate_over_depth="uniform", **options) for network in networks]
    layouts: list[bool] = []
    for branch in rdps[1].branches:
        branch.block.register_forward_hook(
            lambda block, given, out: layouts.append(out.is_contiguous(memory_format=torch.channels_last))
        )
    for iteration in range(4):
        inputs = tiny.inputs(iteration)
        traces = [forward_backward(n, x) for n, x in zip(networks, (inputs, channels_last(inputs)), strict=True)]
        torch.testing.assert_close(traces[0].output, traces[1].output, rtol=0, atol=1e-9)
        for name, gradient in traces[0].gradients.items():
            other = traces[1].gradients[name]
            assert (gradient is None) == (other is None), name
            if gradient is not None and other is not None:
                torch.testing.assert_close(gradient, other, rtol=0, atol=1e-8, msg=name)
        for network, rdp in zip(networks, rdps, strict=True):
            network.zero_grad()
            rdp.step()
    assert layouts and all(layouts)


@EVERY_OPTION
def test_a_group_norm_that_begins_what_learns_gets_the_gradient_of_its_input_too(options: dict[str, Any]) -> None:
    """PyTorch may end the process otherwise; what comes of that gradient is thrown away."""
    torch.manual_seed(0)
    blocks = [Own(nn.Sequential(nn.GroupNorm(1, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))) for _ in range(3)]
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *blocks, nn.Flatten(), nn.Linear(8 * 36, 2)).double()
    seen: dict[int, bool] = {}
    for index, block in enumerate(blocks):
        norm = block.get_submodule("branch.0")

        def note(_: nn.Module, given: Any, index: int = index) -> None:
            seen[index] = seen.get(index, False) or given[0].requires_grad

        norm.register_forward_pre_hook(note)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **options)
    for iteration in range(6):
        images = torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(iteration))
        seen.clear()
        model.zero_grad()
        model(images).square().mean().backward()
        if rdp.kind == "dropped_part":
            learning = [index for index, block in enumerate(blocks) if block.branch[0].weight.grad is not None]
            assert learning and all(seen[index] for index in learning)
            assert model[0].weight.grad is None  # below them nothing learns
        rdp.step()


class Own(nn.Module):
    def __init__(self, branch: nn.Sequential):
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
