"""A tiny network that is trained under an `OptimizerGuard`, with plans that a test writes down itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from residualdroppath.core.freezing.optimizer_guard import OptimizerGuard

FIRST = ("0.weight", "0.bias")
LATER = ("2.weight", "2.bias", "4.weight", "4.bias")


class GuardedTraining:
    """Iterations that freeze `FIRST` and `LATER` in turn; a backward fills the gradients of all parameters."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
        self.inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
        self.frozen: tuple[str, ...] = FIRST
        self.guard = OptimizerGuard(self.parameters, self.frozen_parameters, **options)
        self.guard.install()

    @property
    def layers(self) -> list[nn.Linear]:
        return [layer for layer in self.model.children() if isinstance(layer, nn.Linear)]

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.model.named_parameters())

    def frozen_parameters(self) -> dict[str, nn.Parameter]:
        return {name: self.model.get_parameter(name) for name in self.frozen}

    def optimizer(self, make: Callable[..., Optimizer] = torch.optim.SGD, **options: Any) -> Any:
        """Of all parameters, with settings under which all of them move."""
        return make(self.model.parameters(), **{"lr": 0.05, **options})

    def forward_backward(self) -> Tensor:
        self.guard.before_forward()
        loss = (self.model(self.inputs) - 1).square().mean()
        loss.backward()
        return loss

    def evaluate(self) -> None:
        self.model.eval()
        with torch.no_grad():
            self.model(self.inputs)
        self.guard.after_evaluation()
        self.model.train()

    def step(self, optimizer: Optimizer, *, by_closure: bool = False) -> None:
        """One forward, backward and optimizer step under the plan in force."""
        optimizer.zero_grad()
        if by_closure:

            def closure() -> float:
                optimizer.zero_grad()
                loss = self.forward_backward()
                for parameter in self.frozen_parameters().values():  # no hook comes after, but in use there is none
                    parameter.grad = None
                return float(loss.detach())

            optimizer.step(closure)
        else:
            self.forward_backward()
            optimizer.step()

    def next_iteration(self) -> None:
        """What `rdp.step()` does."""
        self.guard.check_between()
        self.frozen = LATER if self.frozen == FIRST else FIRST
        self.guard.iteration_began()

    def train(self, optimizer: Optimizer, iterations: int, *, by_closure: bool = False) -> None:
        for _ in range(iterations):
            self.step(optimizer, by_closure=by_closure)
            self.next_iteration()

    def move(self, names: Iterable[str]) -> None:
        """Write to parameters as some code outside of any optimizer would."""
        for name in names:
            self.model.get_parameter(name).data.mul_(1.5)


@contextmanager
def group_of_one() -> Iterator[None]:
    """A process group of this process alone, enough for sharded parameters."""
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())  # pyright: ignore
    try:
        yield
    finally:
        dist.destroy_process_group()
