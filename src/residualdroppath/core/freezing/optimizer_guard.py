"""Optimizers that no `None` gradient can stop."""

from __future__ import annotations

import weakref
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle


def refuse_whole_vector_optimizers(model: nn.Module) -> RemovableHandle:
    """Raise `ValueError` when LBFGS steps on a parameter of `model`, until the handle is removed.

    LBFGS moves every parameter along one direction, those without a gradient too.
    """
    reference = weakref.ref(model)

    def check(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if isinstance(optimizer, LBFGS) and (alive := reference()) is not None:
            ours = {id(parameter) for parameter in alive.parameters()}
            if any(id(parameter) in ours for group in optimizer.param_groups for parameter in group["params"]):
                raise ValueError(
                    "ResidualDropPath freezes parameters by leaving their gradient None; LBFGS moves these too. "
                    "Use SGD, Adam or another optimizer that works parameter by parameter."
                )

    return register_optimizer_step_pre_hook(check)
