"""Modules written as one function each, and what discovery makes of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from contracts.comparing import Inputs
from contracts.subject import Subject
from residualdroppath import NoResidualBranchError
from residualdroppath.core.discovery.network_walk import discover
from residualdroppath.core.freezing.ownership import assign_owners

Branches = dict[str, tuple[str, ...]]
Part = Callable[[], Any]


def block(**parts: Part) -> Callable[[Callable[..., Any]], type[nn.Module]]:
    """A decorator: the function is the forward of a module class whose children and parameters are `parts`."""

    def decorate(forward: Callable[..., Any]) -> type[nn.Module]:
        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                for name, part in parts.items():
                    setattr(self, name, part())

        Block.forward = forward
        Block.__name__ = Block.__qualname__ = forward.__name__
        return Block

    return decorate


WIDTH = 4  # of the parts below


def linear() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH)


def mlp() -> nn.Module:
    return nn.Sequential(linear(), nn.ReLU(), linear())


@block(f=mlp)
def residual(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x)


def branches_of(model: nn.Module) -> Branches:
    """By name of each branch found, in order of execution, the names of its parameters; empty if there is none."""
    try:
        discovery = discover(model)
    except NoResidualBranchError:
        return {}
    ownership = assign_owners(model, discovery)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        branch.name: tuple(sorted({names[id(slot.parameter)] for slot in ownership.slots[index]}))
        for index, branch in enumerate(discovery.branches)
    }


def made_of(model: nn.Module, members: Mapping[str, tuple[str, ...]]) -> Branches:
    """`members` (by branch, modules and parameters) as names of parameters; each member must have some."""
    found: Branches = {}
    for branch, own in members.items():
        names: list[str] = []
        for member in own:
            below = [n for n, _ in model.named_parameters() if n == member or n.startswith(f"{member}.")]
            assert below, f"{member} has no parameters"
            names += below
        found[branch] = tuple(sorted(names))
    return found


def assert_branches(model: nn.Module, members: Mapping[str, tuple[str, ...]]) -> None:
    """The branches of `model` are these, in this order, made of these modules and parameters."""
    found, expected = branches_of(model), made_of(model, members)
    assert found == expected
    assert list(found) == list(expected)


def seeded(build: Callable[[], nn.Module], noise: float = 0.1) -> nn.Module:
    """A network in float64 and training mode, no parameter at zero, the same at every call."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = build().double()
        for parameter in model.parameters():
            parameter.data += noise * torch.randn_like(parameter)
    return model.train()


def subject(
    build: Callable[[], nn.Module], inputs: Callable[[int], Inputs], members: Mapping[str, tuple[str, ...]]
) -> Subject:
    """A network to be held to the contracts, its branches made of these modules and parameters."""
    made = Subject(build, inputs)
    made.branches = {branch: set(names) for branch, names in made_of(made.plain, members).items()}
    return made
