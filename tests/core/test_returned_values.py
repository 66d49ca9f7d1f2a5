"""Children that return more than a branch: weights that nobody reads, what later layers share, caches of keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residualdroppath import ResidualDropPath
from residualdroppath.core.discovery.network_walk import discover

from .finding import WIDTH, block, linear, mlp


@block(q=linear, out=linear)
def attention(m: Any, x: Tensor) -> Any:
    return (m.out(m.q(x).softmax(-1) * x),)


@block(q=linear, out=linear)
def attention_in_list(m: Any, x: Tensor) -> Any:
    return [m.out(m.q(x).softmax(-1) * x)]


@block(q=linear, out=linear)
def attention_with_weights(m: Any, x: Tensor) -> Any:
    weights = m.q(x).softmax(-1)
    return m.out(weights * x), weights


def layer(attend: Any, returns: Any) -> Any:
    @block(attn=attend, mlp=mlp)
    def forward(m: Any, x: Tensor) -> Any:
        attended = m.attn(x)
        x = x + attended[0]
        return returns([x + m.mlp(x)]) + attended[1:]  # behind the add

    return forward


def stack(make: Any) -> Any:
    @block(layers=lambda: nn.ModuleList(make() for _ in range(2)))
    def network(m: Any, x: Tensor) -> Tensor:
        for each in m.layers:
            x = each(x)[0]
        return x

    return network()


def batch() -> Tensor:
    return torch.randn(2, 3, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def dropped_one_by_one(network: nn.Module, example: Any, skip: Any) -> list[str]:
    """The branches; drop path of each plan is what `skip(names)` says the network then returns."""
    rdp = ResidualDropPath(
        network, 0.5, rate_over_depth="uniform", scale_by_keep=False, schedule=(1, 0), seed=1, example=example
    )
    for _ in range(6):
        with rdp.paused():
            expected = skip(set(rdp.plan.dropped))
        torch.testing.assert_close(network(*example), expected, rtol=0, atol=1e-12)
        rdp.step()
    return [branch.name for branch in rdp.branches]


PARTS = [f"layers.{i}.{part}" for i in range(2) for part in ("attn", "mlp")]


@pytest.mark.parametrize(
    ("attend", "returns"),
    [(attention, tuple), (attention_in_list, list), (attention_with_weights, tuple)],
    ids=["one_in_a_tuple", "one_in_a_list", "with_weights"],
)
def test_what_else_a_child_returns_is_passed_on_unread(attend: Any, returns: Any) -> None:
    network = stack(layer(attend, returns)).double()

    def skip(dropped: set[str]) -> Tensor:
        x = batch()
        for i, each in enumerate(network.layers):
            x = x if f"layers.{i}.attn" in dropped else x + each.attn(x)[0]
            x = x if f"layers.{i}.mlp" in dropped else x + each.mlp(x)
        return x

    assert dropped_one_by_one(network, (batch(),), skip) == PARTS


def test_without_a_call_as_far_as_the_caller_shows() -> None:
    assert [branch.name for branch in discover(stack(layer(attention, tuple))).branches] == PARTS


def test_callers_may_unpack_what_they_do_not_read() -> None:
    @block(layers=lambda: nn.ModuleList(layer(attention_with_weights, tuple)() for _ in range(2)))
    def network(m: Any, x: Tensor) -> Tensor:
        for each in m.layers:
            x, _ = each(x)
        return x

    model = network()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    for _ in range(4):
        model(torch.randn(2, 3, WIDTH)).sum().backward()
        rdp.step()
    assert [branch.name for branch in rdp.branches] == PARTS


# --- what later layers share


class Biased(nn.Module):
    """As T5's attention: the first makes a bias, the others pass on what they are given."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.q, self.out = linear(), linear()
        self.bias = linear() if first else None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Any:
        if bias is None:
            assert self.bias is not None
            bias = self.bias(torch.ones(WIDTH, dtype=x.dtype))
        return self.out(self.q(x).relu() * bias), bias


class BiasedLayer(nn.Module):
    def __init__(self, first: bool) -> None:
        super().__init__()
        self.attn, self.mlp = Biased(first), mlp()

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Any:
        attended, bias = self.attn(x, bias)
        x = x + attended
        return x + self.mlp(x), bias


class BiasedStack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BiasedLayer(i == 0) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        bias = None
        for each in self.layers:
            x, bias = each(x, bias)
        return x


def test_what_a_child_passes_on_is_read_where_it_was_given() -> None:
    network: Any = BiasedStack().double()

    def skip(dropped: set[str]) -> Tensor:
        x, bias = batch(), None
        for i, each in enumerate(network.layers):
            attended, bias = each.attn(x, bias)
            x = x if any(name.startswith(f"layers.{i}.attn") for name in dropped) else x + attended
            x = x if f"layers.{i}.mlp" in dropped else x + each.mlp(x)
        return x

    first, *others = dropped_one_by_one(network, (batch(),), skip)
    assert first.startswith("layers.0.attn")
    assert others == ["layers.0.mlp", *(f"layers.{i}.{part}" for i in (1, 2) for part in ("attn", "mlp"))]


def test_a_size_that_is_passed_on() -> None:
    @block(a=linear, b=linear)
    def pooling(m: Any, x: Tensor, size: Any) -> Any:
        return m.b(m.a(x).relu()), (size[0], size[1])

    @block(attn=pooling, mlp=mlp)
    def sized(m: Any, x: Tensor, size: Any) -> Any:
        y, size = m.attn(x, size)
        x = x + y
        return x + m.mlp(x), size

    @block(layers=lambda: nn.ModuleList(sized() for _ in range(2)))
    def network(m: Any, x: Tensor) -> Tensor:
        size = (2, 3)
        for each in m.layers:
            x, size = each(x, size)
        return x

    assert [branch.name for branch in discover(network(), torch.randn(2, WIDTH)).branches] == PARTS


# --- caches


class Cache:
    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.is_updated: dict[int, bool] = {}
        self.counts = [0, 0]

    def update(self, key: Tensor) -> Tensor:
        self.keys.append(key)
        return self.keys[-1]


class Caching(nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.k, self.out, self.index = linear(), linear(), index

    def forward(self, x: Tensor, cache: Cache) -> tuple[Tensor, None]:
        key = cache.update(self.k(x))
        cache.is_updated[self.index] = True
        cache.counts[self.index] = cache.counts[self.index] + 1
        return self.out(key.relu()), None


class CachingLayer(nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.attn, self.mlp = Caching(index), mlp()

    def forward(self, x: Tensor, cache: Cache) -> Any:
        attended = self.attn(x, cache=cache)
        x = x + attended[0]
        return (x + self.mlp(x), *attended[1:])


class CachingStack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CachingLayer(i) for i in range(2))
        self.last: Cache | None = None

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        cache = Cache() if cache is None else cache
        for each in self.layers:
            x = each(x, cache)[0]
        return x


def test_a_cache_that_the_forward_makes() -> None:
    assert [branch.name for branch in discover(CachingStack(), torch.randn(2, WIDTH)).branches] == PARTS


def test_a_cache_is_written_once() -> None:
    network, given = CachingStack(), Cache()
    rdp = ResidualDropPath(network, 0.5, rate_over_depth="uniform", example=torch.randn(2, WIDTH))
    for _ in range(3):
        cache = Cache()
        network(torch.randn(2, WIDTH), cache)
        runs = [i for i in range(2) if rdp.kind != "drop_path" or f"layers.{i}.attn" not in rdp.plan.dropped]
        assert len(cache.keys) == len(runs) and list(cache.is_updated) == runs
        assert cache.counts == [int(i in runs) for i in range(2)]
        rdp.step()
    assert given.keys == []


@dataclass
class Intermediates:
    """As in x-transformers: copies of it are no plain copies."""

    values: list[Any] = field(default_factory=list)

    def __copy__(self) -> Intermediates:
        return Intermediates([value.clone() for value in self.values])


def test_a_dataclass_with_a_copy_of_its_own() -> None:
    @block(f=mlp)
    def with_intermediates(m: Any, x: Tensor) -> Any:
        y = x + m.f(x)
        return y, Intermediates([x, (x, None)])

    @block(layers=lambda: nn.ModuleList(with_intermediates() for _ in range(2)))
    def network(m: Any, x: Tensor) -> Tensor:
        for each in m.layers:
            x, _ = each(x)
        return x

    names = [branch.name for branch in discover(network(), torch.randn(2, WIDTH)).branches]
    assert names == ["layers.0", "layers.1"]
