"""Contracts 3 and 4 seen from outside: what runs, what gets a gradient, what keeps a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residualdroppath import ResidualDropPath

from .stepping import assert_close, assert_equal, buffers_of, forward_backward
from .tiny_models import TRUNK, TinyModel, every_model, some_models

both_ways_to_freeze = pytest.mark.parametrize("freeze", ["parameters", "stop_gradient"])


def owned_modules(tiny: TinyModel, model: nn.Module) -> dict[str, list[nn.Module]]:
    """By branch, the modules that belong to it, from the table."""
    return {
        branch: [
            module
            for name, module in model.named_modules()
            if any(name == member or name.startswith(f"{member}.") for member in members)
        ]
        for branch, members in tiny.branches.items()
    }


def count_calls(modules: list[nn.Module]) -> Counter[nn.Module]:
    calls: Counter[nn.Module] = Counter()
    for module in modules:
        module.register_forward_pre_hook(lambda called, _: calls.update([called]))
    return calls


@every_model
def test_dropped_branches_are_not_called_and_leave_no_trace(tiny: TinyModel) -> None:
    model = tiny.build()
    modules = owned_modules(tiny, model)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", schedule=(1, 0), seed=4)
    while not (rdp.plan.dropped and rdp.plan.kept):
        rdp.step()
    calls = count_calls([module for branch in modules.values() for module in branch])
    before = buffers_of(model)
    trace = forward_backward(model, tiny.inputs())

    owners = tiny.owners(model)
    for branch in rdp.plan.dropped:
        assert not any(calls[module] for module in modules[branch])
        assert [name for name, owner in owners.items() if owner == branch and trace.gradients[name] is not None] == []
    for branch in rdp.plan.kept:
        assert any(calls[module] for module in modules[branch])
        assert all(trace.gradients[name] is not None for name, owner in owners.items() if owner == branch)
    for name, buffer in buffers_of(model).items():
        dropped = any(name.startswith(f"{member}.") for branch in rdp.plan.dropped for member in tiny.branches[branch])
        assert torch.equal(buffer, before[name]) == dropped, name


@every_model
def test_the_loss_is_that_of_the_full_network_and_the_gradients_are_exact(tiny: TinyModel) -> None:
    """Nothing is dropped or rescaled in a `dropped_part` iteration."""
    model, plain = tiny.build(), tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    rdp.step()
    assert rdp.kind == "dropped_part"
    trace, full = forward_backward(model, tiny.inputs()), forward_backward(plain, tiny.inputs())
    assert_equal(trace.output, full.output, "output")
    assert_equal(trace.random_state, full.random_state, "state of the random generator")
    assert_equal(buffers_of(model), buffers_of(plain), "buffers")
    for name, owner in tiny.owners(model).items():
        gradient, expected = trace.gradients[name], full.gradients[name]
        if owner in rdp.plan.dropped:
            assert gradient is not None and expected is not None
            assert_close(gradient, expected, name)
        else:
            assert gradient is None, name


@some_models("timm_basic", "two_adds", "projection")
@pytest.mark.parametrize("frozen_norm", ["batch", "running"])
def test_the_loss_is_that_of_the_full_network_under_the_same_norm_modes(tiny: TinyModel, frozen_norm: str) -> None:
    model, plain = tiny.build(), tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", frozen_norm=frozen_norm)  # pyright: ignore
    rdp.step()
    learning = {m for branch in rdp.plan.dropped for m in owned_modules(tiny, plain)[branch]}
    for module in plain.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module not in learning:
            module.train(frozen_norm == "batch")
    before = buffers_of(model)
    trace, full = forward_backward(model, tiny.inputs()), forward_backward(plain, tiny.inputs())
    assert_equal(trace.output, full.output, "output")
    learning_buffers = {
        f"{path}.{name}"
        for path, m in plain.named_modules()
        if m in learning
        for name, _ in m.named_buffers(recurse=False)
    }
    for name, buffer in buffers_of(model).items():
        assert torch.equal(buffer, before[name]) == (name not in learning_buffers), name


@every_model
@both_ways_to_freeze
def test_no_graph_is_kept_below_the_first_branch_that_learns(tiny: TinyModel, freeze: str) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze=freeze, seed=1)  # pyright: ignore
    modules = owned_modules(tiny, model)
    while rdp.kind == "drop_path" or rdp.plan.dropped[0] == next(iter(tiny.branches)):
        rdp.step()
    has_graph: dict[str, bool] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _inputs, output: has_graph.__setitem__(name, output.requires_grad)

    for branch, owned in modules.items():
        for module in owned:
            module.register_forward_hook(note(branch))
    next(model.children()).register_forward_hook(note(TRUNK))
    model(tiny.inputs())
    order = list(tiny.branches)
    below = order[: order.index(rdp.plan.dropped[0])]
    assert below
    assert [name for name in [TRUNK, *below] if has_graph[name]] == []
    assert has_graph[rdp.plan.dropped[0]]
    if freeze == "stop_gradient":
        assert not any(has_graph[name] for name in rdp.plan.kept)


class NormFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.GroupNorm(2, 4), nn.Conv1d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def test_of_a_group_norm_only_rows_that_drop_its_branch_give_gradients() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Sequential(NormFirst(), NormFirst()), torch.randn(8, 4, 3)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze="stop_gradient", granularity="sample")
    rdp.step()
    assert rdp.kind == "dropped_part"
    dropped = rdp.plan.mask(8)[1]
    assert 0 < dropped.sum() < 8
    model(inputs).square().sum().backward()
    found = [parameter.grad for parameter in model[1].parameters()]
    with rdp.paused():
        model.zero_grad()
        model(inputs[dropped]).square().sum().backward()
        for gradient, parameter in zip(found, model[1].parameters(), strict=True):
            assert gradient is not None and parameter.grad is not None
            torch.testing.assert_close(gradient, parameter.grad)
