"""Placeholder with the interface of the guard."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook


class OptimizerGuard:
    def __init__(
        self,
        parameters: Callable[[], Mapping[str, nn.Parameter]],
        frozen: Callable[[], Mapping[str, nn.Parameter]],
        *,
        check_values: bool = True,
    ):
        self.parameters = parameters
        self.frozen = frozen

    def install(self) -> None:
        reference = weakref.ref(self)

        def check(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            guard = reference()
            if guard is None:
                return
            if isinstance(optimizer, LBFGS):
                ours = {id(parameter) for parameter in guard.parameters().values()}
                if any(id(parameter) in ours for group in optimizer.param_groups for parameter in group["params"]):
                    raise ValueError(
                        "ResidualDropPath freezes parameters by leaving their gradient None; LBFGS moves these too. "
                        "Use SGD, Adam or another optimizer that works parameter by parameter."
                    )
            for parameter in guard.frozen().values():
                parameter.grad = None

        self._handle = register_optimizer_step_pre_hook(check)
        weakref.finalize(self, self._handle.remove)

    def remove(self) -> None:
        self._handle.remove()

    def plan_changed(self) -> None: ...

    def before_forward(self) -> None: ...

    def after_evaluation(self) -> None: ...

    def check_between(self) -> None: ...
