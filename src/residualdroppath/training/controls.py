"""The `ResidualDropPath` of a method, and of the controls that take one part of it out.

drop_path_effective   drop path alone, at the rates that the draws of (1, 1) come to
freezing_only         nothing is ever dropped; `dropped_part` iterations freeze as usual (LayerDropBack's form)
without_freezing      `dropped_part` iterations train everything: every other iteration is plain
unrelated_part        `dropped_part` iterations train branches of a draw of their own, not those that were dropped
"""

from __future__ import annotations

import dataclasses
import glob
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from ..core.planning.plan import scheduled_kind
from ..core.residual_drop_path import ResidualDropPath
from ..errors import UserError
from .recipe import TrainConfig
from .runtime import derived_seed

DROP_PATH_ALONE = ("drop_path", "drop_path_effective")
# The kind of iteration in which the full network runs and all of it learns.
PLAIN_KIND = {"freezing_only": "drop_path", "without_freezing": "dropped_part"}


class UnrelatedPart(ResidualDropPath):
    """What a `dropped_part` iteration trains is drawn anew, whatever was dropped."""

    def _go_to(self, iteration: int, *, stepping: bool = False) -> None:
        own = self._plan_options
        if scheduled_kind(own, iteration) == "dropped_part":
            self._plan_options = dataclasses.replace(own, seed=derived_seed(own.seed, "unrelated part"))
        try:
            super()._go_to(iteration, stepping=stepping)
        finally:
            self._plan_options = own


def residual_drop_path(model: nn.Module, config: TrainConfig, total_iterations: int) -> ResidualDropPath | None:
    """What acts on `model` in a training by `config`; None for plain training. Raises `UserError` with the reason."""
    if config.method == "plain":
        return None
    changes: dict[str, Any] = {"schedule": (1, 0)} if config.method in DROP_PATH_ALONE else {}
    try:
        if config.method == "drop_path_effective":
            changes |= {"drop_rates": _effective_rates(model, config), "include": (), "exclude": ()}
        options = config.options(seed=config.seed_of("plan"), total_iterations=total_iterations, **changes)
        kind = UnrelatedPart if config.method == "unrelated_part" else ResidualDropPath
        return kind(model, options=options)
    except ValueError as error:
        raise UserError(str(error)) from error


def iterations_of_cycle(config: TrainConfig) -> int:
    """One, where iterations are all of one kind or come at random."""
    schedule = config.options(seed=0, total_iterations=1).schedule
    if config.method == "plain" or config.method in DROP_PATH_ALONE or schedule == "random":
        return 1
    return sum(schedule)


def in_iteration(rdp: ResidualDropPath | None, method: str) -> AbstractContextManager[None]:
    """Around forward, backward and update of the iteration in force."""
    if rdp is not None and PLAIN_KIND.get(method) == rdp.kind:
        return rdp.paused()
    return nullcontext()


def _effective_rates(model: nn.Module, config: TrainConfig) -> dict[str, float]:
    alternating = ResidualDropPath(model, options=config.options(seed=0, total_iterations=1, schedule=(1, 1)))
    rates = {glob.escape(branch.name): branch.effective_rate for branch in alternating.branches}
    alternating.remove()
    return rates
