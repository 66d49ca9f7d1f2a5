"""Which of nested branches count: those of the level with the most blocks, the outer ones of equals.

Around a single block of several branches, a branch that adds projections to it is a skip, as around a transformer in
a U-net; one that adds more than that is the branch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import fx, nn

from ..graph.node_kinds import is_activation, is_activation_layer, num_layers_in
from ..torch_internals import child_at
from .branch_subgraph import ResidualAdd
from .found import FoundBranch


@dataclass(eq=False)
class Candidate:
    """A branch that was found, and those found inside it; without a `branch`, a part that never runs.

    `reason`: why nothing in a part that never runs counts, or, of a branch, why it does not.
    """

    branch: FoundBranch | None
    outer: Candidate | None
    add: ResidualAdd | None = None  # None if it was registered
    reason: str = ""
    inner: list[Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.outer is not None:
            self.outer.inner.append(self)

    @property
    def num_blocks(self) -> int:
        """Blocks at the level, inside this branch or of this one itself, that has the most."""
        return max(int(not self.reason), self.num_blocks_inside)

    @functools.cached_property  # to be read when all that lies inside has been recorded
    def num_blocks_inside(self) -> int:
        """Blocks that run one after another inside this branch: of parallel paths, along the one with the most."""
        if self.branch is None:
            return 0
        nested = {inner.add.node: inner for inner in self.inner if inner.add and self.add and inner.add.node in self}
        others = [inner for inner in self.inner if inner.branch and inner not in nested.values()]
        if self.add is None:
            return _num_blocks(others)
        apart = {node for inner in nested.values() if inner.add for node in inner.add.nodes}
        below: dict[fx.Node, list[Candidate]] = {}  # those inside of each child that is called
        for node in self.add.nodes:
            if node.op == "call_module" and node not in nested and node not in apart:
                path = f"{self.branch.block_path}.{node.target}.".lstrip(".")
                below[node] = [each for each in others if f"{each.path}.".startswith(path)]
        blocks = {each.branch.block for each in others if each.branch}
        own = [node for node in self.add.nodes if node not in apart]
        by_branch = not any(_learns_more_than_projection(node, self.branch.block, blocks) for node in own)
        most: dict[fx.Node, int] = {}
        for node in self.add.nodes:
            most[node] = max((most[source] for source in node.all_input_nodes if source in most), default=0)
            if node in nested:
                most[node] += nested[node].num_blocks
            most[node] += _num_blocks(below.get(node, []), by_branch=by_branch)
        return max(most.values(), default=0)

    def __contains__(self, node: fx.Node) -> bool:
        return self.add is not None and node in self.add.nodes

    @property
    def path(self) -> str:
        return self.branch.block_path if self.branch else ""

    @property
    def is_skip(self) -> bool:
        """Whether it is a skip around several blocks, which count in its place."""
        return self.num_blocks_inside > 1

    @property
    def counts(self) -> bool:
        return self.branch is not None and not self.reason and not self.is_skip and is_open(self.outer)

    def why_not(self) -> str:
        """Why a candidate does not count."""
        if (around := _closed(self.outer)) is not None:
            return f"it lies inside the branch {around.branch.name}" if around.branch else around.reason
        if self.reason:
            return self.reason
        names = [inner.branch.name for inner in self.inside() if inner.branch and inner.counts]
        first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        return f"it is a skip around {len(names)} branches: {first}"

    def inside(self) -> Iterator[Candidate]:
        for inner in self.inner:
            yield inner
            yield from inner.inside()


def _num_blocks(candidates: list[Candidate], *, by_branch: bool = False) -> int:
    """Blocks that the candidates inside one child stand for: those around which one is a skip, and other ones.

    A block of several branches counts as one next to layers that are a branch of their own, `by_branch` as several.
    """
    around = [each for each in candidates if each.is_skip or each.reason]
    others = [each.branch for each in candidates if each.branch and each not in around]
    return sum(each.num_blocks for each in around) + len(others if by_branch else {each.block for each in others})


def _learns_more_than_projection(node: fx.Node, module: nn.Module, blocks: set[nn.Module]) -> bool:
    """Whether a node of a branch is more than a norm, a convolution or a linear layer, apart from `blocks` inside."""
    if node.op != "call_module":
        return is_activation(node, module)
    return _is_more_than_projection(child_at(module, str(node.target)), blocks)


def _is_more_than_projection(module: nn.Module, blocks: set[nn.Module]) -> bool:
    if module in blocks:
        return False
    if blocks.isdisjoint(module.modules()):
        return num_layers_in(module) > 1 or any(map(is_activation_layer, module.modules()))
    return any(_is_more_than_projection(child, blocks) for child in module.children())


def is_open(place: Candidate | None) -> bool:
    """Whether what lies inside counts: inside no branch but skips around several."""
    return _closed(place) is None


def _closed(place: Candidate | None) -> Candidate | None:
    """The outermost candidate around a place, itself included, inside which nothing counts."""
    around: list[Candidate] = []
    while place is not None:
        around.append(place)
        place = place.outer
    return next((each for each in reversed(around) if not each.is_skip and not (each.branch and each.reason)), None)
