"""A kept branch is scaled in the parameters of its last layer, where nobody can tell."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
)
from torch.nn.utils import parametrizations

from residualdroppath import ResidualDropPath
from residualdroppath.core.running import actions, fold_scale
from residualdroppath.core.running.actions import scale_by

CHANNELS = 6
FACTOR = 1.25


class Block(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.Tanh(), *layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class AddsInPlace(nn.Module):
    """As in timm's and torchvision's ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.BatchNorm2d(CHANNELS)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn(self.conv(x))
        out += x
        return self.act(out)


class CallsTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(torch.tanh(self.conv(x)))


class CallsInside(CallsTwice):
    """The last layer is also the child of another layer of the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Sequential(self.conv, nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.both(x))


class ReadsTheWeight(CallsTwice):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x * self.conv.weight.mean())


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda *_: None)
    return module


def with_own_forward(module: nn.Module) -> nn.Module:
    module.forward = functools.partial(module.forward)
    return module


class Doubled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) ** 2


def hooked_around() -> nn.Module:
    block = Block(nn.BatchNorm2d(CHANNELS))
    hooked(block.branch)
    return block


IN_PARAMETERS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: Block(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)),
    "without_bias": lambda: Block(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)),
    "linear": lambda: Block(nn.Linear(8, 8)),
    "batch_norm": lambda: Block(nn.BatchNorm2d(CHANNELS)),
    "group_norm": lambda: Block(nn.GroupNorm(2, CHANNELS)),
    "layer_norm": lambda: Block(nn.LayerNorm(8)),
    "nested": lambda: Block(nn.Sequential(nn.Tanh(), nn.Conv2d(CHANNELS, CHANNELS, 1))),
    "in_place": AddsInPlace,
}
IN_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "activation": lambda: Block(nn.Tanh()),
    "without_parameters": lambda: Block(nn.LayerNorm(8, elementwise_affine=False)),
    "called_twice": CallsTwice,
    "called_inside": CallsInside,
    "weight_read": ReadsTheWeight,
    "hook": lambda: Block(hooked(nn.BatchNorm2d(CHANNELS))),
    "hook_around": hooked_around,
    "own_forward": lambda: Block(with_own_forward(nn.BatchNorm2d(CHANNELS))),
    "own_class": lambda: Block(Doubled(CHANNELS, CHANNELS, 1)),
    "parametrised": lambda: Block(parametrizations.weight_norm(nn.Conv2d(CHANNELS, CHANNELS, 1))),
}


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Layers that took a factor."""
    found: list[nn.Module] = []

    def noted(layer: nn.Module, *arguments: Any) -> Tensor:
        found.append(layer)
        return fold_scale.run_scaled(layer, *arguments)

    monkeypatch.setattr(actions, "run_scaled", noted)
    return found


def images() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(4, CHANNELS, 8, 8, dtype=torch.float64, generator=generator).requires_grad_()


def assert_scaled(block: nn.Module) -> None:
    """The block computes and learns as if what its branch returns were multiplied."""
    model = nn.Sequential(block).double().train()
    slow = copy.deepcopy(model)
    own, expected = images(), images()
    rdp = ResidualDropPath(model, 0.5)
    by_hand = ResidualDropPath(slow, 0.5)
    with rdp.acting([scale_by(FACTOR)]):
        output = model(own)
    with by_hand.acting([lambda add_point, x, inputs: add_point.add(x, add_point.run(*inputs) * FACTOR)]):
        correct = slow(expected)
    torch.testing.assert_close(output, correct, rtol=1e-12, atol=1e-12)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
    (output * weights).sum().backward()
    (correct * weights).sum().backward()
    torch.testing.assert_close(own.grad, expected.grad, rtol=1e-10, atol=1e-12)
    for (name, parameter), other in zip(model.named_parameters(), slow.parameters(), strict=True):
        assert isinstance(parameter, nn.Parameter)
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-10, atol=1e-12, msg=name)
    for buffer, other in zip(model.buffers(), slow.buffers(), strict=True):
        assert torch.equal(buffer, other)


@pytest.mark.parametrize("name", IN_PARAMETERS)
def test_the_factor_goes_into_the_last_layers_parameters(name: str, uses: list[nn.Module]) -> None:
    torch.manual_seed(0)
    assert_scaled(IN_PARAMETERS[name]())
    assert len(uses) == 1


@pytest.mark.parametrize("name", IN_ACTIVATIONS)
def test_the_factor_stays_outside_where_somebody_could_tell(name: str, uses: list[nn.Module]) -> None:
    torch.manual_seed(0)
    assert_scaled(IN_ACTIVATIONS[name]())
    assert not uses


@pytest.mark.parametrize(
    "register",
    [register_module_forward_pre_hook, register_module_forward_hook, register_module_full_backward_hook],
)
def test_hooks_for_all_modules_are_seen(register: Callable[..., Any], uses: list[nn.Module]) -> None:
    hook = register(lambda *_: None)
    try:
        assert_scaled(Block(nn.BatchNorm2d(CHANNELS)))
    finally:
        hook.remove()
    assert not uses


def test_layers_put_in_later_are_looked_at(uses: list[nn.Module]) -> None:
    block = Block(nn.BatchNorm2d(CHANNELS)).double()
    rdp = ResidualDropPath(nn.Sequential(block), 0.5)
    x = images()
    with rdp.acting([scale_by(FACTOR)]):
        block(x)
        assert uses == [block.branch[2]]
        block.branch[2] = nn.Tanh()
        torch.testing.assert_close(block(x), x + FACTOR * block.branch(x))
        block.branch = nn.Sequential()
        torch.testing.assert_close(block(x), x + FACTOR * x)
        assert len(uses) == 1
        block.branch = nn.Sequential(norm := nn.GroupNorm(2, CHANNELS).double())
        torch.testing.assert_close(block(x), x + FACTOR * norm(x))
        assert uses[1:] == [norm]
        block.branch.append(norm)
        torch.testing.assert_close(block(x), x + FACTOR * norm(norm(x)))
    assert len(uses) == 2


def test_parameters_are_put_back_after_an_error(uses: list[nn.Module]) -> None:
    block = Block(nn.BatchNorm2d(CHANNELS)).double()
    rdp = ResidualDropPath(nn.Sequential(block), 0.5)
    before = dict(block.named_parameters())
    with rdp.acting([scale_by(FACTOR)]), pytest.raises(RuntimeError, match="channels"):
        block(torch.randn(2, CHANNELS + 1, 8, 8, dtype=torch.float64))
    assert len(uses) == 1
    assert all(parameter is before[name] for name, parameter in block.named_parameters())


@pytest.mark.parametrize(("size", "expected"), [(8, 0), (64, 1)])
def test_small_activations_are_scaled_themselves(
    size: int, expected: int, uses: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_scale, "MIN_ELEMENTS_TO_FOLD", 2**14)
    block = Block(nn.BatchNorm2d(CHANNELS))
    rdp = ResidualDropPath(nn.Sequential(block), 0.5)
    x = torch.randn(1, CHANNELS, size, size)
    with rdp.acting([scale_by(FACTOR)]):
        torch.testing.assert_close(block(x), x + FACTOR * block.branch(x))
    assert len(uses) == expected


def test_replicas_and_functional_calls_bring_tensors_of_their_own(uses: list[nn.Module]) -> None:
    block = Block(nn.BatchNorm2d(CHANNELS)).double()
    rdp = ResidualDropPath(nn.Sequential(block), 0.5)
    x = images()
    ours = {name: parameter.detach() * 3 for name, parameter in block.named_parameters()}
    with rdp.acting([scale_by(FACTOR)]):
        output = torch.func.functional_call(block, ours, (x,))
    branch = torch.func.functional_call(block.branch, {k.removeprefix("branch."): v for k, v in ours.items()}, (x,))
    torch.testing.assert_close(output, x + FACTOR * branch)
    assert not uses
