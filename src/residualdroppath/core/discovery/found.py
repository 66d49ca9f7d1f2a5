"""What discovery finds in a network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torch import nn

from ..graph.module_kinds import ModuleKinds
from ..torch_internals import child_at, modules_below, own_children


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
        children = [child_at(self.block, name) for name in names if _is_module(self.block, name)]
        return [module for child in children for module in modules_below(child)]


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

    # Whether something was guessed that a call would show, or could not be followed without one.
    needs_call: bool = False

    # Blocks that are called in several forms, which use other parts of them.
    several_forms: set[nn.Module] = field(default_factory=set)

    # Which modules are alike: their forwards are traced once.
    kinds: ModuleKinds | None = None

    def holds_same_branches(self, other: Discovery) -> bool:
        """Whether branches of the same names use the same parts of the same blocks."""
        mine, its = (
            [(b.name, b.suffix, b.block, b.block_index, b.roots, b.shares) for b in found.branches]
            for found in (self, other)
        )
        return mine == its

    def likely_block(self, model: nn.Module) -> nn.Module | None:
        """The module to register: not followed, nothing found in it, the outermost in a list; if several, one of the
        class that is there most often.

        A list element that holds a list of such itself is a stage: then one of these. The model is never one block.
        """
        paths = dict(model.named_modules())
        found = [f"{branch.block_path}." for branch in self.branches]
        missing = [
            path for path in self.untraceable
            if path and path in paths and not any(own.startswith(f"{path}.") for own in found)
        ]  # fmt: skip
        in_lists = [path for path in missing if isinstance(_parent(paths, path), (nn.ModuleList, nn.Sequential))]
        in_lists = [path for path in in_lists if not _is_stage(path, in_lists)]
        outermost = _outermost(in_lists) or _outermost(missing)
        counts = Counter(type(paths[path]) for path in outermost)
        return max((paths[path] for path in outermost), key=lambda module: counts[type(module)], default=None)


def _parent(paths: dict[str, nn.Module], path: str) -> nn.Module | None:
    parent = path.rpartition(".")[0]
    return paths.get(parent)


def _is_stage(path: str, in_lists: list[str]) -> bool:
    """Whether a list below a module has several of the elements `in_lists`."""
    lists = Counter(other.rpartition(".")[0] for other in in_lists if other.startswith(f"{path}."))
    return any(count > 1 for count in lists.values())


def _outermost(paths: list[str]) -> list[str]:
    return [path for path in paths if not any(path.startswith(f"{other}.") for other in paths)]


def _is_module(block: nn.Module, name: str) -> bool:
    parent, _, last = name.rpartition(".")
    return own_children(child_at(block, parent)).get(last) is not None
