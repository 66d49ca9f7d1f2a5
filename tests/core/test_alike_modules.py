"""Blocks that are alike share one trace, and nothing but what they are alike in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residualdroppath import ResidualDropPath
from residualdroppath.core.graph import tracing
from residualdroppath.core.graph.module_kinds import ModuleKinds
from residualdroppath.core.running.actions import scale_by

WIDTH = 6


class Block(nn.Module):
    """`x + f(x)`, with attributes that a forward may read."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **attributes: Any):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.branch = forward
        self.__dict__.update(attributes)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(self, x)


class Stack(nn.Module):
    def __init__(self, blocks: list[nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[nn.Module]]:
    """How often each module was traced."""
    count: Counter[nn.Module] = Counter()

    def trace(tracer: Any, *further: Any) -> Any:
        count[tracer.root] += 1
        return whole(tracer, *further)

    whole = tracing._trace
    monkeypatch.setattr(tracing, "_trace", trace)
    yield count


def plain(m: Any, x: Tensor) -> Tensor:
    return m.linear(x).relu()


def gated(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) if m.wide else m.linear(x).tanh()


def times_its_place(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) * (m.index + 1)


def even_and_odd(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) if m.index % 2 else m.linear(x).tanh()


def by_name(m: Any, x: Tensor) -> Tensor:
    return m.linear(x) * {0: 1.0, 1: 2.0, 2: 3.0}[m.index]


def by_hand(model: Stack, x: Tensor) -> Tensor:
    for block in model.blocks:
        x = type(block).forward(block, x)
    return x


def through_graphs(model: Stack, rdp: ResidualDropPath, x: Tensor) -> Tensor:
    """All branches run and are added, each by the graph of its block."""
    with rdp.acting([scale_by(1.0)] * len(rdp.branches)):
        return model(x)


def check_forward(model: Stack, **options: Any) -> ResidualDropPath:
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **options)
    assert [branch.name for branch in rdp.branches] == [f"blocks.{i}" for i in range(len(model.blocks))]
    for _ in range(2):
        x = torch.randn(3, WIDTH)
        assert torch.equal(through_graphs(model, rdp, x), by_hand(model, x))
    return rdp


def test_each_kind_is_traced_once(traced: Counter[nn.Module]) -> None:
    model = Stack([Block(plain) for _ in range(5)])
    check_forward(model)
    assert [traced[block] for block in model.blocks] == [1, 0, 0, 0, 0]


def test_a_call_is_traced_once_for_blocks_that_are_alike(traced: Counter[nn.Module]) -> None:
    model = Stack([Block(plain) for _ in range(5)])
    ResidualDropPath(model, example=torch.randn(2, WIDTH))
    assert [traced[block] for block in model.blocks] == [1, 0, 0, 0, 0]


def test_a_flag_makes_another_kind(traced: Counter[nn.Module]) -> None:
    model = Stack([Block(gated, wide=index != 1) for index in range(3)])
    check_forward(model)
    assert [traced[block] for block in model.blocks] == [1, 1, 0]


def test_a_flag_that_is_changed_later_counts_for_its_block_alone() -> None:
    model = Stack([Block(gated, wide=True) for _ in range(3)])
    rdp, x = check_forward(model), torch.randn(3, WIDTH)
    seen = [by_hand(model, x)]
    for changed in (1, 2, 1):
        vars(model.blocks[changed])["wide"] ^= True
        output = through_graphs(model, rdp, x)
        assert torch.equal(output, by_hand(model, x)) and not torch.equal(output, seen[-1])
        seen.append(output)


def test_a_place_is_looked_up(traced: Counter[nn.Module]) -> None:
    model = Stack([Block(times_its_place, index=index) for index in range(4)])
    check_forward(model)
    assert [traced[block] for block in model.blocks] == [1, 0, 0, 0]


@pytest.mark.parametrize("branch", [even_and_odd, by_name])
def test_a_forward_that_decides_by_its_place(branch: Callable[..., Tensor], traced: Counter[nn.Module]) -> None:
    model = Stack([Block(branch, index=index) for index in range(3)])
    check_forward(model)
    assert all(traced[block] for block in model.blocks)


def test_what_a_call_decided_by_values_is_checked_for_each_block() -> None:
    def by_values(m: Any, x: Tensor) -> Tensor:
        return m.linear(x) if m.linear.bias.sum() > 0 else m.linear(x).tanh()

    model = Stack([Block(by_values) for _ in range(3)])
    with torch.no_grad():
        for block, bias in zip(model.blocks, (1.0, -1.0, 1.0), strict=True):
            block.get_parameter("linear.bias").fill_(bias)
    check_forward(model, example=torch.randn(2, WIDTH))


def test_a_child_that_hangs_twice() -> None:
    shared = nn.Linear(WIDTH, WIDTH)
    apart, twice = nn.Module(), nn.Module()
    apart.a, apart.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    twice.a = twice.b = shared
    kinds = ModuleKinds(nn.ModuleList([apart, twice]))
    assert kinds.of(apart) != kinds.of(twice)
    assert kinds.of(apart.a) == kinds.of(apart.b) == kinds.of(shared)


def test_empty_children_are_alike() -> None:
    """As the identity shortcuts of many ResNets, `nn.Sequential()`, which is falsy."""
    blocks = [nn.Sequential(nn.Linear(2, 2), nn.Sequential()) for _ in range(2)]
    kinds = ModuleKinds(nn.ModuleList(blocks))
    assert kinds.of(blocks[0]) == kinds.of(blocks[1])


def test_shapes_and_classes_make_kinds() -> None:
    layers = nn.ModuleList([nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 3, bias=False)])
    layers.append(type("Own", (nn.Linear,), {})(2, 3))
    kinds = ModuleKinds(layers)
    assert kinds.of(layers[0]) == kinds.of(layers[1])
    assert len({kinds.of(layer) for layer in layers}) == 4


def test_a_forward_of_its_own_makes_a_kind() -> None:
    model = Stack([Block(plain) for _ in range(3)])
    kinds = ModuleKinds(model)
    assert kinds.of(model.blocks[0]) == kinds.of(model.blocks[1])
    model.blocks[1].forward = lambda x: x
    kinds.forget()
    assert kinds.of(model.blocks[0]) == kinds.of(model.blocks[2]) != kinds.of(model.blocks[1])
