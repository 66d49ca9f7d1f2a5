"""The call that registers a block which could not be followed: for which block, and that it runs as printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import residualdroppath
from residualdroppath import NoResidualBranchError, ResidualDropPath
from residualdroppath.core.discovery import registry

from .finding import WIDTH, block, linear, mlp, residual


def unclear(x: Tensor) -> bool:
    return bool((x.sum() > -1e9).item())  # depends on values


@block(q=linear, out=linear)
def attention(m: Any, x: Tensor) -> Tensor:
    return m.out(m.q(x)) if unclear(x) else x


@block(attn=attention, mlp=mlp)
def layer(m: Any, x: Tensor) -> Tensor:
    x = x + m.attn(x)
    return x + m.mlp(x) if unclear(x) else x


@block(norm=lambda: nn.LayerNorm(WIDTH), attn=linear, layers=lambda: nn.ModuleList([linear()]))
def with_a_mask(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    if unclear(x):
        x = x + m.attn(m.norm(x)) * mask
    return x + m.layers[0](x)


@block(f=mlp)
def with_options(m: Any, x: Tensor, size: Any, factor: float = 1.0, *, mask: Any = None) -> Tensor:
    return x + factor * m.f(x) if unclear(x) and mask is None else x


class WithParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x + x @ self.weight if unclear(x) else x


@block(f=mlp)
def returns_two(m: Any, x: Tensor) -> tuple[Tensor, None]:
    x = x + m.f(x) if unclear(x) else x
    return x, None


@block(f=mlp)
def returns_a_variable(m: Any, x: Tensor) -> Any:
    outputs = (x + m.f(x),) if unclear(x) else (x,)
    return outputs


class Network(nn.Module):
    """A model that cannot be followed itself, around a list of blocks."""

    def __init__(self, *makes: Any, arguments: tuple[Any, ...] = (), **options: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make() for make in makes)
        self.arguments, self.options = arguments, options

    def forward(self, x: Tensor) -> Tensor:
        for each in self.layers:
            x = each(x) if isinstance(each, residual) else each(x, *self.arguments, **self.options)
            x = x[0] if isinstance(x, tuple) else x
        return x if unclear(x) else -x


@pytest.fixture(autouse=True)
def nothing_registered_afterwards() -> Iterator[None]:
    before = dict(registry._REGISTERED)
    yield
    registry._REGISTERED.clear()
    registry._REGISTERED.update(before)


def suggested(network: nn.Module) -> str:
    """The call in `print(rdp)`, or in the error where nothing was found; empty if there is none."""
    try:
        text = repr(ResidualDropPath(network, 0.5))
    except NoResidualBranchError as error:
        text = str(error)
    found = re.findall(r"`(residualdroppath\.register_block\(.*\))`", text)
    return found[0] if found else ""


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("make", "arguments", "options"),
    [
        (layer, (), {}),
        (with_a_mask, (torch.ones(2, 3, WIDTH),), {}),
        (with_options, ((2, 3),), {"mask": None}),
        (with_options, ((2, 3), 0.5), {}),
        (WithParameters, (), {}),
    ],
    ids=["layer", "mask", "option_by_name", "option_by_place", "parameters"],
)
@pytest.mark.parametrize("settings", [{}, {"granularity": "sample", "freeze": "stop_gradient"}], ids=["batch", "rows"])
def test_it_runs_as_printed(make: Any, arguments: Any, options: Any, alone: bool, settings: Any) -> None:
    makes = (make, make) if alone else (residual, make, make)
    call = suggested(Network(*makes, arguments=arguments, **options))
    eval(call, {"residualdroppath": residualdroppath, make.__name__: make})
    torch.manual_seed(0)
    network, x = Network(*makes, arguments=arguments, **options), torch.randn(2, 3, WIDTH)
    plain = network(x)
    rdp = ResidualDropPath(network, 0.5, rate_over_depth="uniform", **settings)
    assert [branch.name for branch in rdp.branches] == [f"layers.{i}" for i in range(len(makes))]
    assert all(branch.num_parameters for branch in rdp.branches)
    for _ in range(6):
        out = network(x)
        if rdp.kind == "dropped_part":
            torch.testing.assert_close(out, plain)
        out.sum().backward()
        rdp.step()


@pytest.mark.parametrize("make", [returns_two, returns_a_variable], ids=lambda make: make.__name__)
def test_where_several_values_are_returned_it_is_said_in_words(make: Any) -> None:
    text = repr(ResidualDropPath(Network(residual, make), 0.5))
    assert "lambda" not in text
    assert f"If {make.__name__} holds residual branches, register it: its forward with each residual add" in text


def stage_of(make: Any) -> Any:
    @block(blocks=lambda: nn.ModuleList([make(), make()]), down=linear)
    def stage(m: Any, x: Tensor) -> Tensor:
        for each in m.blocks:
            x = each(x)
        return m.down(x) if unclear(x) else x

    return stage


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (lambda: nn.Sequential(residual(), layer(), layer()), "layer"),
        (lambda: Network(residual, layer), "layer"),
        (lambda: Network(stage_of(layer), stage_of(layer)), "layer"),
        (lambda: nn.Sequential(residual(), nn.ModuleDict({"one": attention()}), layer(), WithParameters()), "layer"),
        (lambda: block(stem=residual, head=layer)(lambda m, x: m.head(m.stem(x)))(), "layer"),
    ],
    ids=["sequence", "list", "stages", "also_an_attention", "no_list"],
)
def test_it_names_the_outermost_block_in_a_list(network: Any, named: str) -> None:
    assert suggested(network()).startswith(f"residualdroppath.register_block({named}, ")


@pytest.mark.parametrize(
    "network",
    [lambda: Network(residual, residual), lambda: Network(stage_of(residual)), lambda: nn.Sequential(residual())],
    ids=["model", "stage", "all_found"],
)
def test_it_is_not_printed_where_nothing_is_missing(network: Any) -> None:
    assert suggested(network()) == ""


def test_a_model_that_cannot_be_followed_is_not_taken_for_a_block() -> None:
    with pytest.raises(NoResidualBranchError, match="register_block.MyBlock, "):
        ResidualDropPath(Network(linear))
