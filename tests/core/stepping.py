"""One forward and backward, and what it leaves behind, for comparing models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-10


@dataclass(frozen=True)
class Trace:
    """All that one forward and backward leaves behind."""

    output: Tensor
    loss: Tensor
    gradients: dict[str, Tensor | None]
    random_state: Tensor


def loss_of(output: Tensor) -> Tensor:
    """A loss that no norm, sign or permutation of the outputs leaves alone."""
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).view_as(output)
    return (weights * output).sum() + output.square().mean()


def forward_backward(model: nn.Module, inputs: Tensor, seed: int = 0) -> Trace:
    """Run `model` on `inputs`, the random generator seeded; gradients are added to those there."""
    torch.default_generator.manual_seed(seed)
    output = model(inputs)
    loss = loss_of(output)
    loss.backward()
    return Trace(output.detach(), loss.detach(), gradients_of(model), torch.random.get_rng_state().clone())


def gradients_of(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def sgd_step(model: nn.Module, learning_rate: float = 0.01) -> None:
    """Plain SGD, and all gradients back to None."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.data -= learning_rate * parameter.grad
            parameter.grad = None


def assert_close(actual: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE, msg=lambda text: f"{what}: {text}")


def assert_equal(actual: Any, expected: Any, what: str = "values") -> None:
    """Bit for bit, through dicts and lists."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, msg=lambda text: f"{what}: {text}")
