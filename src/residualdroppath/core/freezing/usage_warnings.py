"""Wrong use that no error shows, noticed from optimizer steps and iterations: each warned about once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn
from torch.optim import Optimizer

from .known_optimizers import estimates_step_size, fails_without_gradient, name_of

STEPS_WITHOUT_ITERATION = 10
ITERATIONS_TO_HOLD_ALL = 10
UPDATES_WITH_SURPLUS = 4
USERS_FRAME = 6  # from `warn` over the hook to the line that calls `optimizer.step()`


@dataclass(slots=True)
class _Seen:
    """An optimizer that stepped: how many tensors it held, whether some are the model's, its steps in an iteration."""

    size: int
    is_ours: bool
    fails_without_gradient: bool
    all_steps: int = 0
    iteration: int = -1
    steps: int = 0


class UsageWarnings:
    """Counts optimizer steps and iterations; keeps neither optimizers nor parameters alive.

    Args:
        parameters: those of the model by name, all of them.
    """

    def __init__(self, parameters: Callable[[], Mapping[str, nn.Parameter]]):
        self._parameters = parameters
        self._seen: WeakKeyDictionary[Optimizer, _Seen] = WeakKeyDictionary()
        self._given: set[object] = set()
        self._held_names: set[str] = set()
        self._iteration = 0
        self._iterations_with_steps = 0
        self._stepped_in_iteration = False
        self._stepped_before = False
        self._iterations_since_step = 0
        self._updates_with_surplus = 0
        self._forward_in_iteration: int | None = None  # of the last training forward since an optimizer step

    def forward_began(self) -> None:
        """A training forward of the model begins, with gradients."""
        self._forward_in_iteration = self._iteration

    def before_step(self, optimizer: Optimizer, held: Mapping[int, nn.Parameter]) -> None:
        """An optimizer is about to step with these parameters, by `id`; gradients of what is frozen are None."""
        seen = self._look_at(optimizer, held)
        if seen.is_ours and seen.fails_without_gradient and any(tensor.grad is None for tensor in held.values()):
            self._warn(
                ("fails", type(optimizer)),
                f"{name_of(optimizer)} is known to fail on parameters whose gradient is None, and some that it holds "
                "have none: iterations freeze parts of a network by that. Use an optimizer that passes over them, as "
                "those of `torch.optim` but LBFGS do.",
            )
        if seen.is_ours and self._forward_in_iteration is not None and self._forward_in_iteration < self._iteration:
            self._warn(
                "between",
                "`rdp.step()` was called between a forward and the optimizer step that uses its gradients: these are "
                "None now where the next iteration freezes, so that nothing is learned there. Call it after the "
                "optimizer step.",
            )

    def after_step(self, optimizer: Optimizer, held: Mapping[int, nn.Parameter]) -> None:
        """An optimizer has stepped with these parameters."""
        seen = self._look_at(optimizer, held)
        if not seen.is_ours:
            return
        self._forward_in_iteration = None
        seen.all_steps += 1
        if seen.all_steps <= 2 and estimates_step_size(optimizer):
            self._warn(
                ("estimates", type(optimizer)),
                f"{name_of(optimizer)} estimates its step size from a sum over all steps and one over what learns now. "
                "Where parts of a network are frozen in turn the estimate runs away and training goes wrong, although "
                "nothing frozen moves. Use an optimizer with a learning rate of your own, such as AdamW.",
            )
        self._count_step(optimizer, seen)

    def iteration_began(self) -> None:
        """`rdp.step()` was called."""
        self._iteration += 1
        self._iterations_since_step += 1
        if self._stepped_in_iteration:
            self._stepped_in_iteration = False
            self._iterations_with_steps += 1
            if self._iterations_with_steps == ITERATIONS_TO_HOLD_ALL:
                self._look_for_parameters_without_optimizer()

    def _look_at(self, optimizer: Optimizer, held: Mapping[int, nn.Parameter]) -> _Seen:
        seen = self._seen.get(optimizer)
        if seen is None or seen.size != len(held):
            names = [name for name, parameter in self._parameters().items() if id(parameter) in held]
            self._held_names.update(names)
            seen = self._seen[optimizer] = _Seen(len(held), bool(names), fails_without_gradient(optimizer))
        return seen

    def _count_step(self, optimizer: Optimizer, seen: _Seen) -> None:
        if seen.iteration != self._iteration:
            seen.iteration, seen.steps = self._iteration, 0
        seen.steps += 1
        if seen.steps == STEPS_WITHOUT_ITERATION:
            self._warn(
                "no iteration",
                f"{name_of(optimizer)} has made {seen.steps} steps and `rdp.step()` was not called: the same branches "
                "are dropped or frozen all along. Call `rdp.step()` once after each optimizer step.",
                stacklevel=USERS_FRAME + 1,
            )
        # Steps without an iteration between them belong to one update: several optimizers, or one inside another.
        if self._stepped_before and self._iterations_since_step > 0:
            surplus = self._iterations_since_step > 1
            self._updates_with_surplus = self._updates_with_surplus + 1 if surplus else 0
            if self._updates_with_surplus == UPDATES_WITH_SURPLUS:
                self._warn(
                    "surplus iterations",
                    f"`rdp.step()` was called {self._iterations_since_step} times since the optimizer step before, and "
                    "more than once in each of the last updates: what was dropped in the iterations between is never "
                    "trained. Call it once after each optimizer step, under gradient accumulation not per micro-batch.",
                    stacklevel=USERS_FRAME + 1,
                )
        self._stepped_before, self._stepped_in_iteration, self._iterations_since_step = True, True, 0

    def _look_for_parameters_without_optimizer(self) -> None:
        missing = [
            name
            for name, parameter in self._parameters().items()
            if parameter.requires_grad and name not in self._held_names
        ]
        if missing:
            first = ", ".join(f"`{name}`" for name in missing[:3])
            self._warn(
                "not held",
                f"{len(missing)} parameters that require a gradient are in none of the optimizers that stepped so far "
                f"({first}{', ...' if len(missing) > 3 else ''}), so they never learn. If that is meant, freeze them "
                "with `requires_grad_(False)`; if not, build the optimizer from all parameters of the model.",
            )

    def _warn(self, key: object, text: str, *, stacklevel: int = USERS_FRAME) -> None:
        if key not in self._given:
            self._given.add(key)
            warnings.warn(text, UserWarning, stacklevel=stacklevel)
