"""Optimizers that do what packages do to parameters whose gradient is None, each checked against the package named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def named(name: str, package: str) -> Callable[[type], type]:
    """Give a class the name and the module under which messages and tables know it."""

    def rename(kind: type) -> type:
        kind.__name__, kind.__module__ = name, f"{package}.{package}"
        return kind

    return rename


class _Plain(Optimizer):
    """Gradient descent by the book; those below add one fault."""

    def __init__(self, params: Any, lr: float = 0.05, **defaults: Any) -> None:
        super().__init__(params, {"lr": lr, **defaults})

    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-group["lr"])
        return loss


@named("Lookahead", "torch_optimizer")
class LookaheadWithoutHooks(Optimizer):
    """torch-optimizer 0.3.0: never runs `Optimizer.__init__`; pulls all to slow weights after the inner step."""

    def __init__(self, optimizer: Optimizer, k: int = 2) -> None:
        self.optimizer, self.k, self.steps = optimizer, k, 0
        self.param_groups = optimizer.param_groups
        self.slow: dict[Tensor, Tensor] = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:
        loss = self.optimizer.step(closure)
        self.steps += 1
        if self.steps % self.k == 1:
            for group in self.param_groups:
                for fast in group["params"]:
                    slow = self.slow.setdefault(fast, fast.data.clone())
                    fast.data.mul_(0.5).add_(slow, alpha=0.5)
                    slow.copy_(fast.data)
        return loss


@named("Lookahead", "lookahead_pytorch")
class LookaheadWithHooks(_Plain):
    """torch2-look-ahead 0.1.0: the same, but an optimizer of its own, whose `step` has hooks."""

    def __init__(self, optimizer: Optimizer, k: int = 2) -> None:
        super().__init__(optimizer.param_groups)
        self.optimizer, self.k, self.steps = optimizer, k, 0
        self.param_groups = optimizer.param_groups
        self.slow = {parameter: parameter.detach().clone() for parameter in self.parameters()}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = self.optimizer.step(closure)
        self.steps += 1
        if self.steps % self.k == 0:
            for fast in self.parameters():
                fast.data.mul_(0.5).add_(self.slow[fast], alpha=0.5)
                self.slow[fast].copy_(fast)
        return loss


@named("SGDScheduleFreeClosure", "schedulefree")
class ScheduleFreeClosure(_Plain):
    """schedulefree 1.4.1: all parameters go to y before the closure, those with a gradient come back."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for parameter in self.parameters():
            parameter.lerp_(self.state[parameter].setdefault("z", parameter.clone()), 0.1)
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    z = self.state[parameter]["z"]
                    parameter.lerp_(z, 1 - 1 / 0.9)
                    z.sub_(parameter.grad, alpha=group["lr"])
                    parameter.lerp_(z, 0.5)
        return loss


class ScheduleFree(_Plain):
    """schedulefree 1.4.1 without closure: `eval()` moves all parameters, `train()` brings them back up to rounding."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, lr, train_mode=True)

    @torch.no_grad()
    def eval(self) -> None:
        self._swap(False, lambda parameter: parameter.mul_(1.1))

    @torch.no_grad()
    def train(self) -> None:
        self._swap(True, lambda parameter: parameter.div_(1.1))

    def _swap(self, train_mode: bool, move: Callable[[Tensor], Any]) -> None:
        for group in self.param_groups:
            if group["train_mode"] != train_mode:
                group["train_mode"] = train_mode
                for parameter in group["params"]:
                    move(parameter)


@named("Ranger21", "ranger21")
class DecayOfTheLast(_Plain):
    """ranger21 0.1.0: weight decay by a loop variable after its loop, so of the last parameter alone."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            parameter = group["params"][-1]
            parameter.data.mul_(1 - group["lr"])
        return loss


@named("Muon", "train_gpt")
class ZeroFilling(_Plain):
    """A Muon that people copy: None becomes zeros "to synchronise", then momentum and decay move the parameter."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for parameter in self.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            parameter.grad = momentum.lerp_(parameter.grad, 0.1).clone()
            parameter.mul_(1 - 0.01)
        return super().step(closure)


@named("VectorOfAll", "copied")
class WritesToNewStorage(_Plain):
    """As ivon-opt 0.1.3 writes: each `p.data` becomes a part of one new vector of all."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        vector = torch.cat([parameter.flatten() for parameter in self.parameters()]) * 1.1
        parts = vector.split([parameter.numel() for parameter in self.parameters()])
        for parameter, part in zip(self.parameters(), parts, strict=True):
            parameter.data = part.view(parameter.shape)


@named("EvolutionarySearch", "torchium")
class EvolutionarySearch(_Plain):
    """torchium 0.1.5: tries random vectors of all parameters and keeps the best."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        losses, candidates = [], []
        for _ in range(3):
            candidates.append([parameter + 0.1 * torch.randn_like(parameter) for parameter in self.parameters()])
            self._set(candidates[-1])
            with torch.enable_grad():
                losses.append(float(closure()))
        self._set(candidates[losses.index(min(losses))])
        return min(losses)

    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters(), values, strict=True):
            parameter.data.copy_(value)


@named("Prodigy", "prodigyopt")
class StepSizeBySums(_Plain):
    """prodigyopt 1.1.2: the groups hold `d` and the sum it is made of."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, lr, d=1e-6, d_numerator=0.0)


@named("DAdaptLion", "pytorch_optimizer")
class StepSizeBySumsLater(_Plain):
    """pytorch_optimizer 4.1.0: the same, but the sum is there from the first step on."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, lr, d=1e-6)

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group.setdefault("numerator_weighted", torch.zeros(1))
        return super().step(closure)


@named("DoG", "dog")
class FailsWithoutGradient(_Plain):
    """dog-optimizer 1.0.3: squares every gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        sum((parameter.grad.detach() ** 2).sum() for parameter in self.parameters())  # pyright: ignore[reportOptionalMemberAccess]
        return super().step(closure)
