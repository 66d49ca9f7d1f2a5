"""Residual adds that nest: those of the level with the most blocks count, the outer ones of equals."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residualdroppath import ResidualDropPath
from residualdroppath.core.discovery.network_walk import discover

from .finding import WIDTH, assert_branches, block, linear, mlp, residual


@block(attn=mlp, mlp=mlp)
def transformer_layer(m: Any, x: Tensor) -> Tensor:
    x = x + m.attn(x)
    return x + m.mlp(x)


def row_of(count: int, make: Any) -> Any:
    return lambda: nn.Sequential(*(make() for _ in range(count)))


@block(first=linear, body=row_of(4, residual), after=linear, up=linear)
def edsr(m: Any, x: Tensor) -> Tensor:
    x = m.first(x)
    return m.up(x + m.after(m.body(x)))


@block(first=linear, body=row_of(4, residual), up=linear)
def edsr_in_place(m: Any, x: Tensor) -> Tensor:
    x = m.first(x)
    out = m.body(x)
    out += x
    return m.up(out)


@block(body=row_of(3, residual), after=linear)
def group(m: Any, x: Tensor) -> Tensor:
    return x + m.after(m.body(x))


@block(first=linear, body=row_of(2, group), after=linear)
def rcan(m: Any, x: Tensor) -> Tensor:
    x = m.first(x)
    return x + m.after(m.body(x))


@block(first=linear, groups=lambda: nn.ModuleList(group() for _ in range(2)), project=linear)
def residual_of_residual(m: Any, x: Tensor) -> Tensor:
    x = m.first(x)
    shortcut = m.project(x)
    for each in m.groups:
        x = each(x)
    return shortcut + x


@block(layers=row_of(2, transformer_layer), conv=linear)
def swin_group(m: Any, x: Tensor) -> Tensor:
    return m.conv(m.layers(x)) + x


@block(first=linear, layers=lambda: nn.ModuleList(swin_group() for _ in range(2)), norm=partial(nn.LayerNorm, WIDTH))
def swin_ir(m: Any, x: Tensor) -> Tensor:
    x = m.first(x)
    kept = x
    for layer in m.layers:
        x = layer(x)
    return m.norm(x) + kept


@block(f=linear, g=mlp, h=mlp, last=linear)
def in_one_forward(m: Any, x: Tensor) -> Tensor:
    y = m.f(x)
    y = y + m.g(y)
    y = y + m.h(y)
    return x + m.last(y)


@block(a=mlp, b=mlp, last=linear)
def in_one_forward_beginning_with_a_branch(m: Any, x: Tensor) -> Tensor:
    y = x + m.a(x)
    y = y + m.b(y)
    return x + m.last(y)


def inside(path: str, names: Any) -> dict[str, tuple[str, ...]]:
    return {f"{path}{name}": (f"{path}{name}.f",) for name in names}


IN_SIX = [f"{group}.body.{i}" for group in range(2) for i in range(3)]
SWIN = [f"layers.{group}.layers.{i}.{part}" for group in range(2) for i in range(2) for part in ("attn", "mlp")]
COUNTED = {
    edsr: inside("body.", range(4)),
    edsr_in_place: inside("body.", range(4)),
    rcan: inside("body.", IN_SIX),
    residual_of_residual: inside("groups.", IN_SIX),
    swin_ir: {name: (name,) for name in SWIN},
    in_one_forward: {"g": ("g",), "h": ("h",)},
    in_one_forward_beginning_with_a_branch: {"a": ("a",), "b": ("b",)},
}


@pytest.mark.parametrize("make", COUNTED, ids=lambda make: make.__name__)
def test_the_level_with_the_most_blocks_counts(make: Any) -> None:
    assert_branches(make(), COUNTED[make])


@pytest.mark.parametrize("make", COUNTED, ids=lambda make: make.__name__)
def test_dropping_them_leaves_the_skips_around_them(make: Any) -> None:
    torch.manual_seed(0)
    network, x = make().double(), torch.randn(2, WIDTH).double()
    names = [branch.name for branch in discover(network).branches]
    rdp = ResidualDropPath(network, 0.99, rate_over_depth="uniform", scale_by_keep=False, schedule=(1, 0), seed=0)
    while len(rdp.plan.dropped) < len(names):
        rdp.step()
    dropped = network(x)
    rdp.remove()
    for name in names:  # the last layer of each branch
        weights = [p for n, p in network.named_parameters() if n.startswith(f"{name}.")]
        for parameter in weights[-2:]:
            parameter.data.zero_()
    torch.testing.assert_close(dropped, network(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "skips"),
    [
        (edsr, {"edsr": "4 branches: body.0, body.1, body.2, ..."}),
        (
            rcan,
            {
                "rcan": "6 branches: body.0.body.0, body.0.body.1, body.0.body.2, ...",
                "body.0": "3 branches: body.0.body.0, body.0.body.1, body.0.body.2",
                "body.1": "3 branches: body.1.body.0, body.1.body.1, body.1.body.2",
            },
        ),
    ],
    ids=["edsr", "rcan"],
)
def test_the_skip_around_them_is_listed_with_its_reason(make: Any, skips: dict[str, str]) -> None:
    expected = {name: f"it is a skip around {reason}" for name, reason in skips.items()}
    assert discover(make()).rejected_adds == expected
    rdp = ResidualDropPath(make())
    assert all(f"{name}: {reason}" in repr(rdp) for name, reason in expected.items())


@block(inner=residual, last=linear)
def around_one_block(m: Any, x: Tensor) -> Tensor:
    return x + m.last(m.inner(x))


@block(first=linear, inner=transformer_layer, last=linear)
def around_one_layer_of_two_adds(m: Any, x: Tensor) -> Tensor:
    return x + m.last(m.inner(m.first(x)))


@block(f=linear, g=mlp)
def around_one_add_in_one_forward(m: Any, x: Tensor) -> Tensor:
    y = m.f(x)
    return x + (y + m.g(y))


@block(first=mlp, inner=transformer_layer, last=linear)
def mlp_around_one_layer_of_two_adds(m: Any, x: Tensor) -> Tensor:
    return x + m.last(m.inner(m.first(x)))


@pytest.mark.parametrize("make", [around_one_block, mlp_around_one_layer_of_two_adds, around_one_add_in_one_forward])
def test_a_block_around_a_single_one_is_the_branch(make: Any) -> None:
    parts = tuple(f"1.{name}" for name, _ in make().named_children())
    network = nn.Sequential(residual(), make())
    assert_branches(network, {"0": ("0.f",), "1": parts})
    assert set(discover(network).rejected_adds.values()) == {"it lies inside the branch 1"}


def test_projections_around_a_layer_of_two_adds_are_a_skip() -> None:
    network = nn.Sequential(residual(), around_one_layer_of_two_adds())
    inner = {f"1.inner.{name}": (f"1.inner.{name}",) for name in ("attn", "mlp")}
    assert_branches(network, {"0": ("0.f",), **inner})
    assert discover(network).rejected_adds == {"1": "it is a skip around 2 branches: 1.inner.attn, 1.inner.mlp"}


def test_blocks_with_one_nested_block_each_inside_a_global_skip() -> None:
    @block(body=row_of(3, around_one_block), after=linear)
    def network(m: Any, x: Tensor) -> Tensor:
        return x + m.after(m.body(x))

    assert_branches(network(), {f"body.{i}": (f"body.{i}",) for i in range(3)})


def test_blocks_inside_a_skip_are_in_order_of_execution() -> None:
    @block(early=residual, f=mlp, late=residual, last=linear)
    def network(m: Any, x: Tensor) -> Tensor:
        y = m.early(x)
        y = y + m.f(y)
        return x + m.last(m.late(y))

    names = [branch.name for branch in discover(network()).branches]
    assert names == ["early", "f", "late"]
    assert [branch.block_index for branch in discover(network()).branches] == [0, 1, 2]


def test_a_part_of_a_body_that_cannot_be_traced_is_listed() -> None:
    @block(f=mlp)
    def by_value(m: Any, x: Tensor) -> Tensor:
        return x + m.f(x) if x.sum() > 0 else x

    @block(body=lambda: nn.Sequential(residual(), by_value(), residual()))
    def network(m: Any, x: Tensor) -> Tensor:
        return x + m.body(x)

    found = discover(network())
    assert [branch.name for branch in found.branches] == ["body.0", "body.2"]
    assert list(found.untraceable) == ["body.1"]
