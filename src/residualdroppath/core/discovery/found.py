"""What discovery finds in a network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torch import nn

from ..torch_internals import own_children


class NoResidualBranchError(ValueError):
    """The network has no residual branch that could be found."""


@dataclass(frozen=True)
class FoundBranch:
    """A branch before anything acts on it.

    `roots` are the children and parameters of `block` (dotted names) that the branch alone uses.
    `shortcut` and `follows` say in words what lies on the other side of the add, and behind it.
    """

    name: str
    suffix: str
    block: nn.Module
    block_path: str
    block_index: int
    roots: tuple[str, ...]
    shortcut: str = "as registered"
    follows: str = "as registered"
    shares: tuple[str, ...] = ()

    def modules(self) -> list[nn.Module]:
        """All that the branch runs, what it shares with other branches included."""
        names = [*self.roots, *self.shares]
        children = [self.block.get_submodule(name) for name in names if _is_module(self.block, name)]
        return [module for child in children for module in child.modules()]


@dataclass
class Discovery:
    """What was found in a network, and what was left aside: by module path, the reason."""

    branches: list[FoundBranch] = field(default_factory=list)
    rejected_adds: dict[str, str] = field(default_factory=dict)
    # By branch, what computes a part of it and is trunk, since something else uses it too.
    cut_off: dict[str, str] = field(default_factory=dict)
    untraceable: dict[str, str] = field(default_factory=dict)
    # Whether something outside the blocks may overwrite the output of a block.
    outputs_may_be_overwritten: bool = False
    # Of the values that a module returns, those that its caller reads, where that is known.
    outputs_read: dict[nn.Module, frozenset[int]] = field(default_factory=dict)
    # Children (id of the module, name) that a traced forward never calls: other names for what is used elsewhere.
    idle: set[tuple[int, str]] = field(default_factory=set)
    # By module of the trunk, what its own forward uses that hangs deeper, perhaps in a branch too (a tied layer).
    deep_uses: dict[nn.Module, tuple[str, ...]] = field(default_factory=dict)

    def likely_block(self, model: nn.Module) -> nn.Module | None:
        """Of the modules that could not be traced, one of the class that is there most often."""
        modules = [model.get_submodule(path) for path in self.untraceable if path in dict(model.named_modules())]
        counts = Counter(map(type, modules))
        return max(modules, key=lambda module: counts[type(module)], default=None)


def _is_module(block: nn.Module, name: str) -> bool:
    parent, _, last = name.rpartition(".")
    return own_children(block.get_submodule(parent)).get(last) is not None
