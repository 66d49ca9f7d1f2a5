"""Is what discovery finds in a model what its source says?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from residualdroppath import NoResidualBranchError
from residualdroppath.core.discovery.network_walk import discover
from residualdroppath.core.freezing.ownership import assign_owners

from .expected import ExpectedModel

Branch = tuple[nn.Module, frozenset[nn.Parameter]]  # its block and its parameters


def differences(model: ExpectedModel, network: nn.Module, found: list[Branch]) -> list[str]:
    """One line for each branch that is missing, too much or not made of the expected parameters."""
    by_name = dict(network.named_parameters(remove_duplicate=False))
    expected = [
        (network.get_submodule(branch.block), frozenset(by_name[name] for name in branch.parameters(network)))
        for branch in model.branches
    ]
    missing = [f"missing {_show(network, *branch)}" for branch in expected if branch not in found]
    unexpected = [f"unexpected {_show(network, *branch)}" for branch in found if branch not in expected]
    return missing + unexpected


def found_branches(network: nn.Module, example: Mapping[str, Any] | None = None) -> list[Branch]:
    """Block and parameters of each branch found, in a forward with the arguments of `example` where they are given."""
    try:
        discovery = discover(network) if example is None else discover(network, _in_dtype_of(network, example))
    except NoResidualBranchError:
        return []
    ownership = assign_owners(network, discovery)
    return [
        (branch.block, frozenset(p for slot in ownership.slots[index] if (p := slot.parameter) is not None))
        for index, branch in enumerate(discovery.branches)
    ]


def _in_dtype_of(network: nn.Module, example: Mapping[str, Any]) -> dict[str, Any]:
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    return {
        name: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in example.items()
    }


def _show(network: nn.Module, block: nn.Module, parameters: frozenset[nn.Parameter]) -> str:
    path = next(name for name, module in network.named_modules() if module is block)
    names = [name for name, parameter in block.named_parameters() if parameter in parameters]
    children = dict.fromkeys(name.split(".")[0] for name in names)
    return f"{path}: {', '.join(children) or 'no parameters'}"
