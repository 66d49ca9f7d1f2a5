"""Frozen means frozen, whatever fills gradients and whatever optimizer steps."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from .known_optimizers import name_of, replacement_for, swaps_weights
from .usage_warnings import UsageWarnings
from .value_samples import Cause, ValueSample

BETWEEN_STEPS = Cause(
    "Something between optimizer steps",
    "A wrapper that averages all parameters after the step of an inner optimizer is the usual one, as `Lookahead` of "
    "torch-optimizer: `timm.optim.Lookahead` leaves alone what has no gradient.",
)


class FrozenParameterMovedError(RuntimeError):
    """Values of parameters changed that the iteration in force freezes."""


class OptimizerGuard:
    """Hooks around the steps of all optimizers that hold to what the plan in force freezes.

    Before a step the gradients of frozen parameters become None, whoever filled them; LBFGS on parameters of the
    model is refused. A sample of the values of what is frozen is taken once per plan, at the first training forward
    or at the first step of an optimizer that holds some of it, and compared before and after every such step and in
    `check_between()`. Version counters would not do: fused kernels and writes through `.data` leave them as they are.
    Wrong use that shows nowhere else is warned about (`UsageWarnings`).

    Steps inside `torch.compile` pass by the hooks; `check_between()` sees what they did.

    Args:
        parameters: all parameters of the model by name, as they are at the time of the call.
        frozen: those that the plan in force freezes; called several times per iteration. The values of those whose
            `requires_grad` is False, which is the user's, are not compared.
        check_values: whether values are compared.
    """

    def __init__(
        self,
        parameters: Callable[[], Mapping[str, nn.Parameter]],
        frozen: Callable[[], Mapping[str, nn.Parameter]],
        *,
        check_values: bool = True,
    ):
        self._parameters = parameters
        self._frozen = frozen
        self._sample = ValueSample() if check_values else None
        self._usage = UsageWarnings(parameters)
        self._take_away: weakref.finalize | None = None

    @property
    def is_installed(self) -> bool:
        return self._take_away is not None and self._take_away.alive

    def install(self) -> None:
        """Guard the steps of all optimizers, until `remove()` or until nothing refers to this object."""
        if not self.is_installed:
            self._take_away = weakref.finalize(self, _remove_hooks, _add_hooks(weakref.ref(self)))
            self._take_away.atexit = False

    def remove(self) -> None:
        """Take the hooks away and forget the sample."""
        if self._take_away is not None:
            self._take_away()
        if self._sample is not None:
            self._sample = ValueSample()

    def plan_changed(self) -> None:
        """Other parameters may be frozen from now on, or the user may have written to them: forget the sample."""
        if self._sample is not None:
            self._sample.forget()

    def iteration_began(self) -> None:
        """`plan_changed()`, by `rdp.step()`: the next iteration began."""
        self.plan_changed()
        self._usage.iteration_began()

    def before_forward(self) -> None:
        """A training forward of the model begins, all flags still the user's: sample what is frozen, once per plan.

        One without gradients (norm statistics gathered over other weights) counts as an evaluation.
        """
        if not torch.is_grad_enabled():
            self.after_evaluation()
            return
        self._usage.forward_began()
        if self._sample is not None and not self._sample.is_taken:
            self._sample.take(_of_the_plan(self._frozen()))

    def after_evaluation(self) -> None:
        """The model ran in evaluation mode, perhaps with other weights for a while (EMA, ScheduleFree's `eval()`).

        They may come back up to rounding only, so the sample is forgotten and taken anew when training goes on.
        """
        if self._sample is not None:
            self._sample.forget()

    def check_between(self) -> None:
        """Raise `FrozenParameterMovedError` if what is frozen moved since the last comparison: for `rdp.step()`.

        Finds wrappers that write after the inner optimizer's step, and optimizers without step hooks.
        """
        if self._sample is not None and self._sample.is_taken:
            self._check(self._frozen(), BETWEEN_STEPS)

    def _before_step(self, optimizer: Optimizer) -> None:
        held = _held_by(optimizer)
        if isinstance(optimizer, LBFGS):
            _refuse_whole_vector(held, self._parameters())
        frozen = self._frozen()
        for parameter in frozen.values():
            if parameter.grad is not None:
                parameter.grad = None
        if self._sample is not None and _holds_any(held, frozen):
            if swaps_weights(optimizer):  # since the sample was taken, up to rounding
                self._sample.forget()
            self._check(frozen, BETWEEN_STEPS)
            if not self._sample.is_taken:
                self._sample.take(_of_the_plan(frozen))
        self._usage.before_step(optimizer, held)

    def _after_step(self, optimizer: Optimizer) -> None:
        held = _held_by(optimizer)
        if self._sample is not None and _holds_any(held, frozen := self._frozen()):
            self._check(frozen, Cause(f"`step()` of {name_of(optimizer)}", f"Use {replacement_for(optimizer)}."))
            if swaps_weights(optimizer):
                self._sample.forget()
        self._usage.after_step(optimizer, held)

    def _check(self, frozen: Mapping[str, nn.Parameter], cause: Cause) -> None:
        if self._sample is None or (moved := self._sample.moved(_of_the_plan(frozen), cause)) is None:
            return
        self._sample.forget()  # raised once per movement
        first = ", ".join(f"`{name}`" for name in moved.names[:3])
        more = f" and {len(moved.names) - 3} more" if len(moved.names) > 3 else ""
        raise FrozenParameterMovedError(
            f"{moved.cause.what} changed parameters that the iteration in force freezes: {first}{more}. "
            f"{moved.cause.remedy} If your own code wrote these values (weight clipping, loading), call "
            "`rdp.refresh()` after it. `check_frozen=False` turns this check off."
        )


def _of_the_plan(frozen: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Without those that the user froze: a momentum encoder moves by code of the user's own."""
    return {name: parameter for name, parameter in frozen.items() if parameter.requires_grad}


def _refuse_whole_vector(held: Collection[int], parameters: Mapping[str, nn.Parameter]) -> None:
    if _holds_any(held, parameters):
        raise ValueError(
            "ResidualDropPath freezes parameters by leaving their gradient None; LBFGS moves these too. "
            "Use SGD, Adam or another optimizer that works parameter by parameter."
        )


def _held_by(optimizer: Optimizer) -> dict[int, nn.Parameter]:
    return {id(parameter): parameter for group in optimizer.param_groups for parameter in group["params"]}


def _holds_any(held: Collection[int], parameters: Mapping[str, nn.Parameter]) -> bool:
    return any(id(parameter) in held for parameter in parameters.values())


# Hooks must not be taken away while torch goes through them, and garbage is collected at any time, inside of them too.
_running: list[None] = []
_to_remove: list[RemovableHandle] = []


def _add_hooks(guard: weakref.ref[OptimizerGuard]) -> list[RemovableHandle]:
    return [
        register_optimizer_step_pre_hook(_hook(guard, OptimizerGuard._before_step)),
        register_optimizer_step_post_hook(_hook(guard, OptimizerGuard._after_step)),
    ]


def _hook(
    reference: weakref.ref[OptimizerGuard], method: Callable[[OptimizerGuard, Optimizer], None]
) -> Callable[[Optimizer, Any, Any], None]:
    def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling():
            return
        if (guard := reference()) is not None and guard.is_installed:
            _running.append(None)
            try:
                method(guard, optimizer)
            finally:
                _running.pop()

    return hook


def _remove_hooks(handles: list[RemovableHandle]) -> None:
    _to_remove.extend(handles)
    while _to_remove and not _running:
        _to_remove.pop().remove()
