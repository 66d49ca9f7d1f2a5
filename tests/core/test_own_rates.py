"""The rates of a model's own drop path, branch by branch: of the libraries, and of one small block for each rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from residualdroppath import register_block
from residualdroppath.core.discovery import registry
from residualdroppath.core.discovery.network_walk import discover
from residualdroppath.core.discovery.own_drop_path import OwnDropPath, find_own_drop_path, switched_off
from residualdroppath.core.discovery.own_rates import combined, rates_of_branches

from .drop_path_models import DropPathModel, with_drop_path
from .finding import block
from .tiny_blocks import WIDTH, mlp


def rates_of(model: nn.Module) -> dict[str, float]:
    own = find_own_drop_path(model)
    with switched_off(own):
        discovery = discover(model)
    rates = rates_of_branches(model, discovery, own)
    assert find_own_drop_path(model) == own  # all on again
    return {branch.name: rate for branch, rate in zip(discovery.branches, rates, strict=True)}


@with_drop_path
def test_rates_are_those_of_the_sources(named: DropPathModel) -> None:
    rates = rates_of(named.model)
    assert rates == pytest.approx(named.branches, abs=1e-7)
    assert list(rates) == list(named.branches)


def linear() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH)


def drop(rate: float) -> Callable[[], nn.Module]:
    return lambda: DropPath(rate)


@block(f=mlp, drop_path=drop(0.2))
def plain(self: Any, x: Tensor) -> Tensor:
    return x + self.drop_path(self.f(x))


@block(f=mlp, first=drop(0.1), second=drop(0.2))
def in_a_row(self: Any, x: Tensor) -> Tensor:
    return self.second(self.f(self.first(x))) + x


@block(f=mlp, drop_path=drop(0.1))
def one_module_called_twice(self: Any, x: Tensor) -> Tensor:
    return x + self.drop_path(self.f(self.drop_path(x)))


@block(f=mlp, g=mlp, drop_path=drop(0.2))
def one_module_for_two_adds(self: Any, x: Tensor) -> Tensor:
    x = x + self.drop_path(self.f(x))
    return x + self.drop_path(self.g(x))


@block(f=mlp, g=mlp, first=drop(0.1), second=drop(0.3))
def a_module_for_each_add(self: Any, x: Tensor) -> Tensor:
    x = x + self.first(self.f(x))
    return x + self.second(self.g(x))


@block(f=mlp, g=mlp, second=drop(0.3))
def an_add_without(self: Any, x: Tensor) -> Tensor:
    x = x + self.f(x)
    return x + self.second(self.g(x))


@block(f=mlp, g=mlp, first=drop(0.2), second=drop(0.2))
def parallel_parts_of_one_rate(self: Any, x: Tensor) -> Tensor:
    return x + (self.first(self.f(x)) + self.second(self.g(x)))


@block(f=mlp, g=mlp, first=drop(0.3), second=drop(0.2))
def parallel_parts_of_two_rates(self: Any, x: Tensor) -> Tensor:
    return x + torch.stack([self.first(self.f(x)), self.second(self.g(x))]).sum(0)


@block(f=mlp, g=mlp, first=drop(0.3))
def parallel_parts_one_without(self: Any, x: Tensor) -> Tensor:
    return x + (self.first(self.f(x)) + self.g(x))


@block(f=mlp, g=mlp, drop_path=drop(0.2))
def a_gate_beside(self: Any, x: Tensor) -> Tensor:
    return x + self.drop_path(self.f(x)) * torch.sigmoid(self.g(x))


@block(f=mlp, drop_path=drop(0.2), scale=lambda: nn.Parameter(torch.ones(WIDTH)))
def shapes_and_constants_are_no_paths(self: Any, x: Tensor) -> Tensor:
    rows, width = x.shape
    out = self.drop_path(self.f(x)).reshape(rows, -1).type_as(x).view(rows, width) * self.scale + self.scale
    return x + out


@block(f=linear, drop_path=drop(0.2))
def attention(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.softmax(x, -1)
    return self.drop_path(self.f(x)), weights


@block(attention=attention, norm=lambda: nn.LayerNorm(WIDTH))
def at_the_end_of_a_child(self: Any, x: Tensor) -> Tensor:
    return x + self.attention(self.norm(x))[0]


@block(f=lambda: nn.Sequential(linear(), nn.Sequential(DropPath(0.1), linear()), DropPath(0.2)))
def in_a_sequential(self: Any, x: Tensor) -> Tensor:
    return x + self.f(x)


@block(f=lambda: nn.Sequential(linear(), plain(), linear()), drop_path=drop(0.1))
def around_a_residual_block(self: Any, x: Tensor) -> Tensor:
    return x + self.drop_path(self.f(x))


@block(f=linear, g=mlp, h=linear, inner=drop(0.3))
def around_a_residual_add(self: Any, x: Tensor) -> Tensor:
    y = self.f(x)
    y = y + self.inner(self.g(y))
    return x + self.h(y)


@block(f=mlp, stem=drop(0.3), drop_path=drop(0.1))
def on_the_trunk(self: Any, x: Tensor) -> Tensor:
    x = self.stem(x)
    return x + self.drop_path(self.f(x))


@block(drop_prob=lambda: 0.2)
def StochasticDepth(self: Any, x: Tensor, branch: Tensor) -> Tensor:
    if self.training and self.drop_prob > 0:
        return x + branch * torch.rand(()).gt(self.drop_prob)
    return x + branch


@block(f=mlp, add=StochasticDepth)
def a_module_that_adds(self: Any, x: Tensor) -> Tensor:
    return self.add(x, self.f(x))


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    return x * torch.rand(len(x), 1).ge(rate) if training and rate > 0 else x


@block(f=mlp, g=mlp, drop_path_rate=lambda: 0.2)
def a_rate_of_the_block(self: Any, x: Tensor) -> Tensor:
    x = x + drop_path(self.f(x), self.drop_path_rate, self.training)
    return x + drop_path(self.g(x), self.drop_path_rate, self.training)


@block(parts=lambda: nn.ModuleList([mlp(), mlp()]), drop_path_rate=lambda: 0.2)
def a_rate_of_a_block_with_a_list(self: Any, x: Tensor) -> Tensor:
    x = x + drop_path(self.parts[0](x), self.drop_path_rate, self.training)
    return x + drop_path(self.parts[1](x), self.drop_path_rate, self.training)


@block(f=mlp, drop_path=drop(0.2), sample_drop_ratio=lambda: 0.2)
def as_in_dinov2(self: Any, x: Tensor) -> Tensor:
    if self.training and self.sample_drop_ratio > 0.1:
        rows = torch.randperm(len(x))[:1]
        return x.index_add(0, rows, self.f(x[rows]))
    if self.training and self.sample_drop_ratio > 0:
        return x + self.drop_path(self.f(x))
    return x + self.f(x)


@block(f=mlp, drop_connect_rate=lambda: 0.2)
def layer_with_a_rate(self: Any, x: Tensor) -> Tensor:
    return drop_path(self.f(x), self.drop_connect_rate, self.training)


@block(layer=layer_with_a_rate)
def a_rate_of_a_child(self: Any, x: Tensor) -> Tensor:
    return x + self.layer(x)


@block(f=linear, block=a_rate_of_the_block, g=linear)
def a_rate_of_a_residual_block_inside(self: Any, x: Tensor) -> Tensor:
    return x + self.g(self.block(self.f(x)).relu())


RATES = [
    (plain, [0.2]),
    (in_a_row, [0.28]),
    (one_module_called_twice, [0.19]),
    (one_module_for_two_adds, [0.2, 0.2]),
    (a_module_for_each_add, [0.1, 0.3]),
    (an_add_without, [0, 0.3]),
    (parallel_parts_of_one_rate, [0.2]),
    (parallel_parts_of_two_rates, [0.2]),
    (parallel_parts_one_without, [0]),
    (a_gate_beside, [0.2]),
    (shapes_and_constants_are_no_paths, [0.2]),
    (at_the_end_of_a_child, [0.2]),
    (in_a_sequential, [0.28]),
    (around_a_residual_block, [0.1]),
    (around_a_residual_add, [0]),
    (on_the_trunk, [0.1]),
    (a_module_that_adds, [0.2]),
    (a_rate_of_the_block, [0.2, 0.2]),
    (a_rate_of_a_block_with_a_list, [0.2, 0.2]),
    (as_in_dinov2, [0.2]),
    (a_rate_of_a_child, [0.2]),
    (a_rate_of_a_residual_block_inside, [0]),
]


@pytest.mark.parametrize(("make", "expected"), RATES, ids=[make.__name__ for make, _ in RATES])
def test_rates_of_one_block(make: type[nn.Module], expected: list[float]) -> None:
    rates = rates_of(nn.Sequential(make(), plain()))
    assert list(rates.values()) == pytest.approx([*expected, 0.2], abs=1e-12)


def test_single_rates_are_exact() -> None:
    assert combined() == 0 and combined(0.2) == 0.2 and combined(0, 0.7, 0) == 0.7
    assert rates_of(plain()) == {"plain": 0.2}


class Stack(nn.Module):
    """Layers that are skipped, between a residual block that never is and a list that is none of its own."""

    def __init__(self, layers: nn.ModuleList, layerdrop: float) -> None:
        super().__init__()
        self.before = an_add_without()
        self.layers = layers
        self.layerdrop = layerdrop

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        for layer in self.layers.children():
            if not (self.training and self.layerdrop > 0 and torch.rand(()) < self.layerdrop):
                x = layer(x)
        return x


def test_layerdrop_is_combined_into_every_branch_of_its_layers() -> None:
    layers = nn.ModuleList([plain(), nn.Sequential(a_module_for_each_add()), nn.Sequential(nn.Linear(WIDTH, WIDTH))])
    rates = rates_of(nn.Sequential(Stack(layers, 0.1), plain()))
    expected = [0, 0.3, 1 - 0.9 * 0.8, 1 - 0.9 * 0.9, 1 - 0.9 * 0.7, 0.2]
    assert list(rates.values()) == pytest.approx(expected, abs=1e-12)
    layers = nn.ModuleList([Stack(nn.ModuleList([plain()]), 0.2)])  # a stack in a stack
    rates = rates_of(Stack(layers, 0.1))
    expected = [0, 0.3, 0.1, 1 - 0.9 * 0.7, 1 - 0.9 * 0.8 * 0.8]
    assert list(rates.values()) == pytest.approx(expected, abs=1e-12)


class LayerDropModuleList(nn.ModuleList):
    p = 0.0

    def __iter__(self) -> Any:
        raise AssertionError("iterating draws")


def test_layers_of_a_list_that_skips_them_by_itself() -> None:
    layers = LayerDropModuleList([plain(), plain()])
    layers.p = 0.1
    rates = rates_of(Stack(layers, 0.0))
    assert list(rates.values()) == pytest.approx([0, 0.3, 0.28, 0.28], abs=1e-12)


class Inline(nn.Module):
    """A stack whose layers are written out in its own forward, as FlauBERT's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = mlp()
        self.attentions = nn.ModuleList([mlp(), mlp()])
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.layerdrop = 0.1

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.stem(x)
        for i in range(2):
            if self.training and self.layerdrop > 0 and torch.rand(()) < self.layerdrop:
                continue
            x = x + self.attentions[i](self.norms[i](x))
        return x


def test_layerdrop_of_a_stack_that_is_one_block() -> None:
    assert list(rates_of(Inline()).values()) == [0, 0.1, 0.1]


class Registered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = mlp(), attention()
        self.drop_path, self.absent = DropPath(0.1), None
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:  # can be traced, but does not count
        x = x + self.f(x)
        return x + self.g(x)[0]


def test_of_registered_blocks_the_children_named_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    forward = lambda block, add, x: add("g", add("f", x, block.f, x), block.g, x)  # noqa: E731
    register_block(Registered, forward, {"f": ["f"], "g": ["g", "drop_path", "absent", "scale"]})
    rates = rates_of(nn.Sequential(Registered(), nn.Sequential(Registered())))
    assert list(rates.values()) == pytest.approx([0, 0.28] * 2, abs=1e-12)


def test_a_registered_block_inside_of_a_branch_has_shortcuts_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    register_block(Registered, lambda block, add, x: add("f", x, block.f, x), {"f": ["f", "drop_path"]})
    around = block(f=lambda: nn.Sequential(linear(), Registered(), linear()))(lambda self, x: x + self.f(x))
    assert list(rates_of(nn.Sequential(around(), plain())).values()) == [0, 0.2]


def test_a_block_that_is_called_otherwise_than_guessed_counts_what_its_branch_calls() -> None:
    for model, expected in ((in_a_row(), [0.28]), (one_module_for_two_adds(), [0.2, 0.2])):
        discovery = discover(model)
        discovery.branches = [replace(branch, suffix="seen in a call") for branch in discovery.branches]
        assert rates_of_branches(model, discovery, find_own_drop_path(model)) == pytest.approx(expected)


@block(f=linear, drop_path=drop(0.1))
def untraceable(self: Any, x: Tensor) -> Tensor:
    return self.drop_path(self.f(x)) if x.sum() > 0 else x


def test_drop_path_that_cannot_be_attributed_is_an_error() -> None:
    model = nn.Sequential(block(f=untraceable)(lambda self, x: x + self.f(x))(), plain())
    with pytest.raises(ValueError) as raised:
        rates_of(model)
    for part in ("`drop_path_rate='model'`", "0.f.drop_path", "in a untraceable", "only a call shows", "`drop_rates`"):
        assert part in str(raised.value)
    assert len(find_own_drop_path(model)) == 2  # on again


def test_a_model_without_drop_path_is_an_error() -> None:
    with pytest.raises(ValueError) as raised:
        rates_of(block(f=mlp, drop_path=drop(0.0))(lambda self, x: x + self.drop_path(self.f(x)))())
    for part in ("`drop_path_rate='model'` needs", "<lambda> has none", "drop_path_rate=0.1", "a rate in [0, 1)"):
        assert part in str(raised.value)


def test_drop_path_beside_all_branches_is_an_error() -> None:
    with pytest.raises(ValueError) as raised:
        rates_of(nn.Sequential(DropPath(0.1), block(f=mlp)(lambda self, x: x + self.f(x))()))
    for part in ("`drop_path_rate='model'` needs", "that of Sequential (0)", "none of the 1", "`drop_rates`"):
        assert part in str(raised.value)


def test_rates_are_those_that_were_found() -> None:
    model = plain()
    own = find_own_drop_path(model)
    vars(model.get_submodule("drop_path"))["drop_prob"] = 0.9
    assert rates_of_branches(model, discover(model), own) == (0.2,)
    changed = [OwnDropPath(one.path, one.holder, one.attribute, 0.5, one.kind) for one in own]
    assert rates_of_branches(model, discover(model), changed) == (0.5,)
