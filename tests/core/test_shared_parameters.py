"""What two branches share, or a branch and the trunk, is trunk: by its parameters, in `repr`, and while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.option_pairs import one_row, row_of_each_mode
from contracts.subject import Subject
from contracts.walk import check_contracts
from residualdroppath import ResidualDropPath

from .finding import block, branches_of, made_of, seeded, subject
from .tiny_blocks import WIDTH


def linear() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


class Residual(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.f = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x)


class Network(nn.Module):
    """Stem, blocks and head; by default each has its own parameters."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.stem = linear()
        self.blocks = nn.ModuleList(blocks)
        self.head = linear()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        for residual in self.blocks:
            x = residual(x)
        return self.head(x)


@dataclass(frozen=True)
class Case:
    """`branches`: what is left to each branch; `shared`: what `repr` lists, by module or parameter."""

    build: Callable[[], nn.Module]
    branches: dict[str, tuple[str, ...]]
    shared: tuple[str, ...]


def two_blocks_one_layer() -> nn.Module:
    shared = linear()
    return Network(Residual(shared, nn.Tanh(), linear()), Residual(shared, nn.Tanh(), linear()), Residual(linear()))


def two_blocks_one_branch() -> nn.Module:
    shared = nn.Sequential(linear(), nn.BatchNorm1d(WIDTH))
    return Network(Residual(shared), Residual(shared), Residual(linear()))


def tied_weights() -> nn.Module:
    first, second = linear(), linear()
    second.weight = first.weight
    return Network(Residual(first), Residual(second))


def tied_parameters_of_blocks() -> nn.Module:
    first, second = scaled(), scaled()
    second.gamma = first.gamma
    return Network(first, second)


def tied_with_the_head() -> nn.Module:
    network = Network(Residual(linear()), Residual(linear(), nn.Tanh(), linear()))
    network.head.weight = network.get_parameter("blocks.1.f.0.weight")
    return network


def layer_that_is_the_stem() -> nn.Module:
    network = Network(Residual(linear()), Residual(linear(), nn.Tanh(), linear()))
    network.get_submodule("blocks.0.f").register_module("0", network.stem)
    return network


def norm_that_is_the_trunks() -> nn.Module:
    network = Network(Residual(nn.LayerNorm(WIDTH), linear()), Residual(linear()))
    norm = network.get_submodule("blocks.0.f.0")
    network.head = nn.Sequential(norm, linear())  # pyright: ignore[reportAttributeAccessIssue]
    return network


def three_of_four_tied() -> nn.Module:
    layers = [linear() for _ in range(4)]
    for layer in layers[1:3]:
        layer.bias = layers[0].bias
    return Network(*(Residual(layer) for layer in layers))


def tied_within_one_branch() -> nn.Module:
    first, second = linear(), linear()
    second.weight = first.weight
    return Network(Residual(first, nn.Tanh(), second), Residual(linear()))


def layer_twice_in_one_branch() -> nn.Module:
    layer = linear()
    return Network(Residual(layer, nn.Tanh(), layer), Residual(linear()))


def one_block_twice() -> nn.Module:
    block = Residual(linear())
    return Network(block, Residual(linear()), block)


def trunk_and_the_block_behind_it() -> nn.Module:
    """Tracing names the layer of the trunk as that of the block, `behind.f.0`."""
    trunk = block_behind_a_layer()
    trunk.layer = trunk.get_submodule("behind.f.0")
    return Network(trunk, Residual(linear()))


def second_branch_by_the_name_of_a_layer_of_the_first() -> nn.Module:
    parallel = two_parallel_branches()
    parallel.g = parallel.get_submodule("f.2")
    return Network(parallel, Residual(linear()))


def embeddings_tied_in_the_trunk() -> nn.Module:
    network = Network(Residual(linear()), Residual(linear()))
    network.head.weight = network.stem.weight
    return network


@block(f=linear, gamma=lambda: nn.Parameter(torch.rand(WIDTH)))
def scaled(m: Any, x: Tensor) -> Tensor:
    return x + m.gamma * m.f(x)


@block(behind=lambda: Residual(linear(), nn.Tanh(), linear()), layer=linear)
def block_behind_a_layer(m: Any, x: Tensor) -> Tensor:
    return m.behind(torch.tanh(m.layer(x)))


@block(f=lambda: nn.Sequential(linear(), nn.Tanh(), linear(), nn.Tanh(), linear()), g=linear)
def two_parallel_branches(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x) + m.g(x)


@block(f=linear, g=linear)
def two_branches_one_layer(m: Any, x: Tensor) -> Tensor:
    x = x + m.g(torch.tanh(m.f(x)))
    return x + m.f(x)


@block(f=linear, g=linear)
def branch_and_trunk_one_layer(m: Any, x: Tensor) -> Tensor:
    x = m.f(x)
    return x + m.g(torch.tanh(m.f(x)))


@block(f=linear, gamma=lambda: nn.Parameter(torch.rand(WIDTH)))
def branch_and_trunk_one_parameter(m: Any, x: Tensor) -> Tensor:
    return (x + m.gamma * m.f(x)) * m.gamma


@block(f=linear)
def three_times_one_layer(m: Any, x: Tensor) -> Tensor:
    for _ in range(3):
        x = x + torch.tanh(m.f(x))
    return x


CASES: dict[str, Case] = {
    "two_blocks_one_layer": Case(
        two_blocks_one_layer,
        {"blocks.0": ("blocks.0.f.2",), "blocks.1": ("blocks.1.f.2",), "blocks.2": ("blocks.2.f",)},
        ("blocks.0.f.0",),
    ),
    "two_blocks_one_branch": Case(
        two_blocks_one_branch, {"blocks.0": (), "blocks.1": (), "blocks.2": ("blocks.2.f",)}, ("blocks.0.f",)
    ),
    "tied_weights": Case(
        tied_weights, {"blocks.0": ("blocks.0.f.0.bias",), "blocks.1": ("blocks.1.f.0.bias",)}, ("blocks.0.f.0.weight",)
    ),
    "tied_parameters_of_blocks": Case(
        tied_parameters_of_blocks, {"blocks.0": ("blocks.0.f",), "blocks.1": ("blocks.1.f",)}, ("blocks.0.gamma",)
    ),
    "tied_with_the_head": Case(
        tied_with_the_head,
        {"blocks.0": ("blocks.0.f",), "blocks.1": ("blocks.1.f.0.bias", "blocks.1.f.2")},
        ("blocks.1.f.0.weight",),
    ),
    "layer_that_is_the_stem": Case(layer_that_is_the_stem, {"blocks.0": (), "blocks.1": ("blocks.1.f",)}, ("stem",)),
    "norm_that_is_the_trunks": Case(
        norm_that_is_the_trunks, {"blocks.0": ("blocks.0.f.1",), "blocks.1": ("blocks.1.f",)}, ("blocks.0.f.0",)
    ),
    "three_of_four_tied": Case(
        three_of_four_tied,
        {f"blocks.{i}": (f"blocks.{i}.f.0.weight",) if i < 3 else ("blocks.3.f",) for i in range(4)},
        ("blocks.0.f.0.bias",),
    ),
    "trunk_and_the_block_behind_it": Case(
        trunk_and_the_block_behind_it,
        {"blocks.0.behind": ("blocks.0.behind.f.2",), "blocks.1": ("blocks.1.f",)},
        ("blocks.0.behind.f.0",),
    ),
    "second_branch_by_the_name_of_a_layer_of_the_first": Case(
        second_branch_by_the_name_of_a_layer_of_the_first,
        {"blocks.0.f": ("blocks.0.f.0", "blocks.0.f.4"), "blocks.0.f.2": (), "blocks.1": ("blocks.1.f",)},
        ("blocks.0.f.2",),
    ),
    # Shared by nobody else: these stay with their branch, and are not listed.
    "tied_within_one_branch": Case(
        tied_within_one_branch, {"blocks.0": ("blocks.0.f",), "blocks.1": ("blocks.1.f",)}, ()
    ),
    "layer_twice_in_one_branch": Case(
        layer_twice_in_one_branch, {"blocks.0": ("blocks.0.f",), "blocks.1": ("blocks.1.f",)}, ()
    ),
    "one_block_twice": Case(one_block_twice, {"blocks.0": ("blocks.0.f",), "blocks.1": ("blocks.1.f",)}, ()),
    "embeddings_tied_in_the_trunk": Case(
        embeddings_tied_in_the_trunk, {"blocks.0": ("blocks.0.f",), "blocks.1": ("blocks.1.f",)}, ()
    ),
    # Used twice within one forward.
    "two_branches_one_layer": Case(
        lambda: Network(two_branches_one_layer(), Residual(linear())),
        {"blocks.0.f": ("blocks.0.g",), "blocks.0.f@2": (), "blocks.1": ("blocks.1.f",)},
        ("blocks.0.f",),
    ),
    "branch_and_trunk_one_layer": Case(
        lambda: Network(branch_and_trunk_one_layer(), Residual(linear())),
        {"blocks.0": ("blocks.0.g",), "blocks.1": ("blocks.1.f",)},
        ("blocks.0.f",),
    ),
    "branch_and_trunk_one_parameter": Case(
        lambda: Network(branch_and_trunk_one_parameter(), Residual(linear())),
        {"blocks.0": ("blocks.0.f",), "blocks.1": ("blocks.1.f",)},
        ("blocks.0.gamma",),
    ),
    "three_times_one_layer": Case(
        lambda: Network(three_times_one_layer(), Residual(linear())),
        {"blocks.0.f": (), "blocks.0.f@2": (), "blocks.0.f@3": (), "blocks.1": ("blocks.1.f",)},
        ("blocks.0.f",),
    ),
}
every_case = pytest.mark.parametrize("name", CASES)


def parameters(model: nn.Module, members: tuple[str, ...]) -> list[str]:
    return [name for own in made_of(model, {"shared": members}).values() for name in own]


@every_case
def test_what_is_shared_belongs_to_no_branch(name: str) -> None:
    case = CASES[name]
    model = case.build()
    found = branches_of(model)
    assert found == made_of(model, case.branches)
    assert list(found) == list(case.branches)
    assert not set(parameters(model, case.shared)) & {own for names in found.values() for own in names}


@every_case
def test_what_is_shared_is_told(name: str) -> None:
    case = CASES[name]
    rdp = ResidualDropPath(case.build())
    expected = parameters(rdp.model, case.shared)
    assert sorted(rdp.shared_parameters) == sorted(expected)
    lines = [line for line in repr(rdp).splitlines() if "used in several places, taken as trunk: " in line]
    assert [sorted(line.split(": ")[1].split(", ")) for line in lines] == ([sorted(expected)] if expected else [])


@every_case
@pytest.mark.parametrize("freeze", ["parameters", "stop_gradient"])
def test_what_is_shared_learns_with_the_trunk(name: str, freeze: Any) -> None:
    """In `drop_path` iterations it learns, whatever is dropped; in `dropped_part` ones it is frozen."""
    case = CASES[name]
    model = seeded(case.build)
    shared = [model.get_parameter(n) for n in parameters(model, case.shared)]
    trunk = [*model.get_submodule("stem").parameters(), *model.get_submodule("head").parameters(), *shared]
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze=freeze, seed=2)
    inputs = torch.randn(5, WIDTH, dtype=torch.float64)
    learned: set[int] = set()
    for _ in range(12):  # until some branch has been kept
        model(inputs).square().sum().backward()
        if rdp.kind == "dropped_part":
            assert all(p.grad is None for p in trunk), rdp.plan
        learned |= {id(p) for p in trunk if p.grad is not None}
        model.zero_grad()
        rdp.step()
    assert learned == {id(p) for p in trunk}


def case_of(name: str) -> Subject:
    def inputs(seed: int) -> dict[str, Tensor]:
        return {"x": torch.randn(5, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))}

    return subject(lambda: seeded(CASES[name].build), inputs, CASES[name].branches)


@every_case
def test_contracts(name: str) -> None:
    check_contracts(case_of(name), one_row(2 * list(CASES).index(name)))


@pytest.mark.full
@every_case
def test_contracts_under_options_of_each_mode(name: str) -> None:
    check_contracts(case_of(name), row_of_each_mode(list(CASES).index(name)))


def test_a_branch_with_nothing_of_its_own_is_never_the_only_one_to_be_dropped() -> None:
    """A `dropped_part` iteration that trains nothing would be lost; drop path alone may drop such branches."""
    names = ("blocks.0", "blocks.1")
    rdp = ResidualDropPath(two_blocks_one_branch(), 0.3, rate_over_depth="uniform")
    assert [branch.drop_rate for branch in rdp.branches] == [0.0, 0.0, 0.3]
    rdp.remove()
    alone = ResidualDropPath(two_blocks_one_branch(), 0.3, rate_over_depth="uniform", schedule=(1, 0))
    assert [branch.drop_rate for branch in alone.branches if branch.name in names] == [0.3, 0.3]


def test_frozen_shared_parameters_keep_their_momentum() -> None:
    """Contract 5, for what two branches share: bit-identical through a `dropped_part` iteration."""
    model = seeded(two_blocks_one_layer)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", seed=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    shared = model.get_parameter("blocks.0.f.0.weight")
    inputs = torch.randn(5, WIDTH, dtype=torch.float64)
    moved = []
    for _ in range(4):
        before = shared.detach().clone()
        model(inputs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        moved.append(not torch.equal(shared, before))
        rdp.step()
    assert moved == [True, False, True, False]


def test_a_parameter_tied_within_a_branch_counts_once() -> None:
    model = tied_within_one_branch()
    branch = ResidualDropPath(model).branches[0]
    own = list(model.get_submodule("blocks.0").parameters())
    assert [id(p) for p in branch.parameters()] == [id(p) for p in own]
    assert branch.num_parameters == sum(p.numel() for p in own)


def test_another_name_that_no_forward_uses_makes_nothing_shared() -> None:
    model = seeded(lambda: Network(Residual(linear()), Residual(linear())))
    model.register_module("first_layer", model.get_submodule("blocks.0.f"))
    rdp = ResidualDropPath(model)
    assert rdp.shared_parameters == ()
    assert branches_of(model)["blocks.0"]
