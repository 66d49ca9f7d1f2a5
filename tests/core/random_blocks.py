"""Residual blocks put together from pieces, each with its formula written by hand.

`forward` is what discovery traces and rewrites; `formula` is the same block as DESIGN.md section 1
writes it, every branch behind a gate that may mask, scale or detach it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The block, the number of its branch and what computes the branch, to what is added.
Gate = Callable[["Block", int, Callable[[], Tensor]], Tensor | float]


def iadd_shortcut(shortcut: Tensor, branch: Tensor) -> Tensor:
    shortcut += branch
    return shortcut


def iadd_branch(shortcut: Tensor, branch: Tensor) -> Tensor:
    branch += shortcut
    return branch


ADDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "s + b": lambda s, b: s + b,
    "b + s": lambda s, b: b + s,
    "torch.add(s, b)": lambda s, b: torch.add(s, b),
    "torch.add(b, s)": lambda s, b: torch.add(b, s),
    "s.add(b)": lambda s, b: s.add(b),
    "b.add(s)": lambda s, b: b.add(s),
    "s += b": iadd_shortcut,
    "s.add_(b)": lambda s, b: s.add_(b),
    "b += s": iadd_branch,
    "b.add_(s)": lambda s, b: b.add_(s),
}
OVERWRITES_SHORTCUT = ("s += b", "s.add_(b)")
OVERWRITES_BRANCH = ("b += s", "b.add_(s)")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu_": lambda: nn.ReLU(inplace=True),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}


class LayerScale(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


@dataclass(frozen=True)
class Family:
    """The tensors of a network: vectors float[rows, width], or signals float[rows, width, length]."""

    convolutional: bool

    def layer(self, width_in: int, width: int, stride: int = 1) -> nn.Module:
        return nn.Conv1d(width_in, width, 3, stride, padding=1) if self.convolutional else nn.Linear(width_in, width)

    def projection(self, width_in: int, width: int, stride: int) -> nn.Module:
        return nn.Conv1d(width_in, width, 1, stride) if self.convolutional else nn.Linear(width_in, width)

    def norm(self, kind: str, width: int) -> nn.Module:
        if kind == "batch":
            return nn.BatchNorm1d(width, eps=0.01)
        if kind == "group" or self.convolutional:  # one group: layer norm over channels and length
            return nn.GroupNorm(2 if kind == "group" else 1, width, eps=0.01)
        return nn.LayerNorm(width, eps=0.01)

    def per_channel(self, width: int) -> tuple[int, ...]:
        return (width, 1) if self.convolutional else (width,)


@dataclass(frozen=True)
class BranchSpec:
    """`pieces` in order, of layer, norm, act, relu and block, as one child `name` or as loose children of the block."""

    name: str
    pieces: tuple[str, ...]
    norm: str = "batch"
    act: str = "relu"
    loose: bool = False
    scale: str = "none"
    add: str = "s + b"
    inner: BlockSpec | None = None


@dataclass(frozen=True)
class BlockSpec:
    """`kind` names a class below; `after` what follows the add; `before`, `behind` are blocks of the trunk."""

    kind: str
    width: int
    branches: tuple[BranchSpec, ...]
    stride: int = 1
    entry: str = ""
    shortcut: str = "identity"
    after: str = ""
    returns_tuple: bool = False
    before: BlockSpec | None = None
    behind: BlockSpec | None = None

    @property
    def has_branches(self) -> bool:
        return self.kind != "NotResidual" or any(inner and inner.has_branches for inner in (self.before, self.behind))

    @property
    def output_is_saved(self) -> bool:
        """For the backward of what made it, so that it must not be overwritten."""
        return self.behind.output_is_saved if self.behind else "relu" in self.after

    @property
    def overwrites_input(self) -> bool:
        if self.before:
            return self.before.overwrites_input
        return not self.entry and self.shortcut == "identity" and self.branches[0].add in OVERWRITES_SHORTCUT

    def build(self, family: Family, width_in: int) -> Block:
        return KINDS[self.kind](self, family, width_in)


class Block(nn.Module):
    """One block; subclasses say how branches and shortcut are added."""

    num_branches = 2

    def __init__(self, spec: BlockSpec, family: Family, width_in: int) -> None:
        super().__init__()
        self.spec = spec
        self.family = family
        self.width_in = width_in
        # Defined in another order than they run.
        self.behind: Block | None = spec.behind and spec.behind.build(family, spec.width)
        self.post = family.norm("batch", spec.width) if spec.after == "norm" else ACTIVATIONS.get(spec.after, nn.ReLU)()
        self.parts = tuple(self._make_branch(branch) for branch in spec.branches)
        self.shortcut = self._make_shortcut()
        self.entry = family.norm(spec.entry, width_in) if spec.entry else None
        self.before: Block | None = spec.before and spec.before.build(family, width_in)

    def _make_branch(self, spec: BranchSpec) -> tuple[str, ...]:
        """Children of the block that are the branch, in order."""
        made: list[tuple[str, nn.Module]] = []
        width, stride = self.width_in, self.spec.stride
        for piece in spec.pieces:
            if piece == "layer":
                module = self.family.layer(width, self.spec.width, stride)
                width, stride = self.spec.width, 1
            elif piece == "norm":
                module = self.family.norm(spec.norm, width)
            elif piece == "block":
                assert spec.inner is not None
                module = spec.inner.build(self.family, width)
            else:
                module = ACTIVATIONS[spec.act if piece == "act" else piece]()
            made.append((f"{spec.name}_{piece}{len(made)}", module))
        if spec.scale == "module":
            made.append((f"{spec.name}_scale", LayerScale(*self.family.per_channel(width))))
        if not spec.loose:
            made = [(spec.name, nn.Sequential(*(module for _, module in made)))]
        if spec.scale in ("vector", "scalar"):
            shape = self.family.per_channel(width) if spec.scale == "vector" else ()
            self.register_parameter(f"{spec.name}_gamma", nn.Parameter(torch.ones(shape)))
        for name, module in made:
            self.add_module(name, module)
        return tuple(name for name, _ in made)

    def _make_shortcut(self) -> nn.Module | None:
        kind, stride = self.spec.shortcut, self.spec.stride
        if kind == "scaled":
            return LayerScale(*self.family.per_channel(self.width_in))
        layers: list[nn.Module] = []
        if kind.startswith("pool"):
            layers.append(nn.AvgPool1d(2, ceil_mode=True))
            stride = 1
        if "projection" in kind:
            layers.append(self.family.projection(self.width_in, self.spec.width, stride))
            layers += [self.family.norm("batch", self.spec.width)] if kind.endswith("norm") else []
        return nn.Sequential(*layers) if len(layers) > 1 else layers[0] if layers else None

    def members(self, index: int) -> tuple[str, ...]:
        """Children and parameters of branch `index` that nothing else in the block uses."""
        gamma = f"{self.spec.branches[index].name}_gamma"
        names = (*self.parts[index], gamma) if gamma in self._parameters else self.parts[index]
        return tuple(name for name in names if self.spec.after != "last part" or name != self.parts[0][-1])

    def suffix(self, index: int) -> str:
        """The last part of the branch's name."""
        if self.num_branches == 1:
            return ""
        first, *others = [self._first_weight(i) for i in range(index, -1, -1)]
        return f"{first}@2" if first in others else first

    def _first_weight(self, index: int) -> str:
        """The child with the first weight of branch `index`: of a layer's two names the first."""
        spec = self.spec.branches[index]
        weights = [place for place, piece in enumerate(spec.pieces) if piece in ("layer", "block")]
        child = self.get_submodule(self.parts[index][weights[0] if spec.loose else 0])
        return next(name for name, module in self.named_modules() if module is child)

    def run(self, index: int, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """One branch."""
        spec = self.spec.branches[index]
        if spec.scale in ("vector", "scalar"):
            x = getattr(self, f"{spec.name}_gamma") * self.chain(index, x)
        elif spec.scale == "number":
            x = 0.7 * self.chain(index, x)
        else:
            x = self.chain(index, x)
        return x if mask is None else x * mask

    def chain(self, index: int, x: Tensor) -> Tensor:
        for name in self.parts[index]:
            x = getattr(self, name)(x)
        return x

    def add(self, index: int, shortcut: Tensor, branch: Tensor) -> Tensor:
        return ADDS[self.spec.branches[index].add](shortcut, branch)

    def side(self, x: Tensor) -> Tensor:
        """The shortcut."""
        if self.spec.shortcut == "pad":
            x = x[..., :: self.spec.stride] if self.family.convolutional else x
            return F.pad(x, (0, 0) * self.family.convolutional + (0, self.spec.width - self.width_in))
        return x if self.shortcut is None else self.shortcut(x)

    def finish(self, x: Tensor) -> Tensor:
        if self.spec.after == "F.relu_":
            return F.relu(x, inplace=True)
        if self.spec.after == "last part":
            return getattr(self, self.parts[0][-1])(x)
        return self.post(x) if self.spec.after else x

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        if self.before is not None:
            x = self.before(x)
        if self.entry is not None:
            x = self.entry(x)
        out = self.finish(self.added(x, mask))
        if self.behind is not None:
            out = self.behind(out)
        return (out, x) if self.spec.returns_tuple else out

    def formula(self, x: Tensor, mask: Tensor | None, gate: Gate) -> Tensor:
        if self.before is not None:
            x = self.before.formula(x, None, gate)
        if self.entry is not None:
            x = self.entry(x)
        out = self.finish(self.gated(x, mask, gate))
        return out if self.behind is None else self.behind.formula(out, None, gate)

    def added(self, x: Tensor, mask: Tensor | None) -> Tensor:
        raise NotImplementedError

    def gated(self, x: Tensor, mask: Tensor | None, gate: Gate) -> Tensor:
        raise NotImplementedError


class OneBranch(Block):
    num_branches = 1

    def added(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.add(0, self.side(x), self.run(0, x, mask))

    def gated(self, x: Tensor, mask: Tensor | None, gate: Gate) -> Tensor:
        return self.side(x) + gate(self, 0, lambda: self.run(0, x, mask))


class TwoAdds(Block):
    """As a transformer block; with one `BranchSpec` alone both adds run the same children."""

    def __init__(self, spec: BlockSpec, family: Family, width_in: int) -> None:
        super().__init__(spec, family, width_in)
        if len(self.parts) == 1:
            self.parts *= 2
            self.spec = BlockSpec(**{**vars(spec), "branches": spec.branches * 2})

    def added(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.add(0, x, self.run(0, x, mask))
        x = self.add(1, x, self.run(1, x))
        return x

    def gated(self, x: Tensor, mask: Tensor | None, gate: Gate) -> Tensor:
        y = x + gate(self, 0, lambda: self.run(0, x, mask))
        return y + gate(self, 1, lambda: self.run(1, y))


class ParallelAsOne(Block):
    num_branches = 1

    def members(self, index: int) -> tuple[str, ...]:
        return (*super().members(0), *super().members(1))

    def added(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.add(0, self.side(x), self.run(0, x, mask) + self.run(1, x))

    def gated(self, x: Tensor, mask: Tensor | None, gate: Gate) -> Tensor:
        return self.side(x) + gate(self, 0, lambda: self.run(0, x, mask) + self.run(1, x))


class ParallelAsTwo(Block):
    def added(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.add(1, self.add(0, self.side(x), self.run(0, x, mask)), self.run(1, x))

    def gated(self, x: Tensor, mask: Tensor | None, gate: Gate) -> Tensor:
        first = gate(self, 0, lambda: self.run(0, x, mask))
        return self.side(x) + first + gate(self, 1, lambda: self.run(1, x))


class NotResidual(Block):
    """Two sides of equal standing, or one gating the other: all trunk."""

    num_branches = 0

    def added(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.spec.branches[0].add == "s + b":
            return self.run(0, x) + self.run(1, x)
        return torch.tanh(self.run(0, x)) * self.run(1, x)

    def gated(self, x: Tensor, mask: Tensor | None, gate: Gate) -> Tensor:
        return self.added(x, mask)


KINDS = {kind.__name__: kind for kind in (OneBranch, TwoAdds, ParallelAsOne, ParallelAsTwo, NotResidual)}
