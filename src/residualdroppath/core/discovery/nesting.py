"""Which of nested branches count: those of the level with the most blocks, the outer ones of equals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from .found import FoundBranch


@dataclass(eq=False)
class Candidate:
    """A branch that was found, and those found inside it; without a `branch`, a part that never runs.

    `reason`: why nothing in a part that never runs counts.
    """

    branch: FoundBranch | None
    outer: Candidate | None
    reason: str = ""
    inner: list[Candidate] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.outer is not None:
            self.outer.inner.append(self)

    @property
    def num_blocks(self) -> int:
        """Blocks at the level, inside this branch or of this one itself, that has the most."""
        return max(1, self.num_blocks_inside)

    @property
    def num_blocks_inside(self) -> int:
        """Adds of the same forward count one each, those of another block together."""
        if self.branch is None:
            return 0
        several = [inner for inner in self.inner if inner.is_skip or (inner.branch and inner.block is self.block)]
        others = {inner.block for inner in self.inner if inner.branch and inner not in several}
        return sum(inner.num_blocks for inner in several) + len(others)

    @property
    def is_skip(self) -> bool:
        """Whether it is a skip around several blocks, which count in its place."""
        return self.num_blocks_inside > 1

    @property
    def block(self) -> nn.Module | None:
        return self.branch.block if self.branch else None

    @property
    def counts(self) -> bool:
        return self.branch is not None and not self.is_skip and is_open(self.outer)

    def why_not(self) -> str:
        """Why a candidate does not count."""
        if (around := _closed(self.outer)) is not None:
            return around.reason or f"it lies inside the branch {around.branch and around.branch.name}"
        names = [inner.branch.name for inner in self.inside() if inner.branch and inner.counts]
        first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        return f"it is a skip around {len(names)} branches: {first}"

    def inside(self) -> Iterator[Candidate]:
        for inner in self.inner:
            yield inner
            yield from inner.inside()


def is_open(place: Candidate | None) -> bool:
    """Whether what lies inside counts: inside no branch but skips around several."""
    return _closed(place) is None


def _closed(place: Candidate | None) -> Candidate | None:
    """The outermost candidate around a place, itself included, inside which nothing counts."""
    around: list[Candidate] = []
    while place is not None:
        around.append(place)
        place = place.outer
    return next((each for each in reversed(around) if not each.is_skip), None)
