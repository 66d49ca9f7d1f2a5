"""Hand-written residual blocks on float[rows, WIDTH], one for each way to write a residual add."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

WIDTH = 6


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(inplace=True), nn.Linear(WIDTH, WIDTH))


class OwnAdd(nn.Module):
    """The common form."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class InplaceAdd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # ReLU saves its result, not `x`, so autograd allows `x` to be overwritten.
        self.branch = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x += self.branch(x)
        return x


class TorchAdd(nn.Module):
    """The branch is the first operand."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.branch(x), x)


class TwoAdds(nn.Module):
    """As a transformer block: two branches, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attn = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = mlp()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class LayerScale(nn.Module):
    """A parameter of the block itself belongs to the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(WIDTH))
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.f(x)


class ParallelAsOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(WIDTH, WIDTH)
        self.b = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.a(x) + self.b(x))


class ParallelAsTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(WIDTH, WIDTH)
        self.b = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.a(x)) + self.b(x)


class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm1d(WIDTH)
        self.fc1 = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.BatchNorm1d(WIDTH)
        self.fc2 = nn.Linear(WIDTH, WIDTH)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.fc1(self.act(self.norm1(x)))
        out = self.fc2(self.act(self.norm2(out)))
        return x + out


class PostActivation(nn.Module):
    """As in ResNet: the activation after the add overwrites the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH)
        self.bn = nn.BatchNorm1d(WIDTH)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn(self.fc(x))
        out += x
        return self.act(out)


class PostActivationIdentity(PostActivation):
    """The activation would overwrite the block's input, were the shortcut handed on as it is."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.bn(self.fc(x)))


class Projection(nn.Module):
    """A projection shortcut and the norm that feeds both sides belong to the trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.shortcut = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
        self.fc1 = nn.Linear(WIDTH, 2 * WIDTH)
        self.fc2 = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.shortcut(x) + self.fc2(torch.tanh(self.fc1(x)))


class DropoutInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.fc1(x))
        out = nn.functional.dropout(out, 0.3, training=self.training)
        return x + self.fc2(self.dropout(out))


class OptionalMask(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
        out = self.f(x) * scale
        if mask is not None:
            out = out * mask
        return x + out


class Stack(nn.Module):
    """Stem, three blocks in a Sequential, head."""

    def __init__(self, block: Callable[[], nn.Module]):
        super().__init__()
        self.stem = nn.Linear(5, WIDTH)
        self.blocks = nn.Sequential(*(block() for _ in range(3)))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


class ListStack(nn.Module):
    """Stem with batch norm, three blocks in a ModuleList, head."""

    def __init__(self, block: Callable[[], nn.Module]):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(5, WIDTH), nn.BatchNorm1d(WIDTH))
        self.layers = nn.ModuleList(block() for _ in range(3))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class MaskedStack(ListStack):
    """Hands each block a mask: by keyword, by position, and not at all."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        mask = (x > 0).to(x.dtype)
        first, second, third = self.layers
        return self.head(third(second(first(x, mask=mask), mask, scale=0.5)))
