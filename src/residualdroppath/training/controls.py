"""The `ResidualDropPath` of a method, and of the controls that take one part of it out; `trains` has others.

drop_path_effective   drop path alone, at the rates that the draws of (1, 1) come to
freezing_only         nothing is ever dropped; `dropped_part` iterations freeze as usual (LayerDropBack's form)
"""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn

from ..core.options import Options
from ..core.residual_drop_path import ResidualDropPath
from ..errors import UserError
from ..integrations.ddp import Frozen
from .recipe import TrainConfig

COMPILE_OPTIONS: dict[str, Any] = {}  # torch's defaults
DROP_PATH_ALONE = ("drop_path", "drop_path_effective")


def residual_drop_path(model: nn.Module, config: TrainConfig, total_iterations: int) -> ResidualDropPath | None:
    """What acts on `model` in a training by `config`; None for plain training. Raises `UserError` with the reason."""
    if config.method == "plain":
        return None
    changes: dict[str, Any] = {"schedule": (1, 0)} if config.method in DROP_PATH_ALONE else {}
    try:
        if config.method == "drop_path_effective":
            changes |= {"drop_rates": _effective_rates(model, config), "include": (), "exclude": ()}
        options = config.options(seed=config.seed_of("plan"), total_iterations=total_iterations, **changes)
        return _with_a_trunk_that_learns(ResidualDropPath(model, options=options), config)
    except ValueError as error:
        raise UserError(str(error)) from error


def compile_network(model: nn.Module, rdp: ResidualDropPath | None) -> None:
    """`torch.compile` in place; residual branches each by itself, so that no plan needs graphs of its own."""
    model.compile(**COMPILE_OPTIONS)
    if rdp is not None:
        rdp.compile(**COMPILE_OPTIONS)


def iterations_of_cycle(config: TrainConfig) -> int:
    """One, where iterations are all of one kind or come at random."""
    schedule = config.options(seed=0, total_iterations=1).schedule
    if config.method == "plain" or config.method in DROP_PATH_ALONE or schedule == "random":
        return 1
    return sum(schedule)


def always_trains_trunk(options: Options) -> bool:
    """Whether the trunk learns in `dropped_part` iterations too."""
    return options.train_trunk or getattr(options, "trains", "last") == "all"


def frozen_parameters(rdp: ResidualDropPath | None, method: str) -> Frozen | None:
    """What finds the parameters that get no gradient in the iteration in force; None for plain training."""
    if rdp is None:
        return None
    return lambda: {} if method == "freezing_only" and rdp.kind == "drop_path" else rdp.frozen_parameters()


def in_iteration(rdp: ResidualDropPath | None, method: str) -> AbstractContextManager[None]:
    """Around forward, backward and update of the iteration in force."""
    return nullcontext() if rdp is None or method != "freezing_only" else _nothing_dropped(rdp)


@contextmanager
def _nothing_dropped(rdp: ResidualDropPath) -> Iterator[None]:
    with warnings.catch_warnings():
        # Optimizer steps of paused iterations are not counted, so those of `rdp.step()` seem too many.
        warnings.filterwarnings("ignore", r"`rdp\.step\(\)` was called", UserWarning)
        with rdp.paused() if rdp.kind == "drop_path" else nullcontext():
            yield


def _effective_rates(model: nn.Module, config: TrainConfig) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of effective rates, which are wanted here
        alternating = ResidualDropPath(model, options=config.options(seed=0, total_iterations=1, schedule=(1, 1)))
    rates = {glob.escape(branch.name): branch.effective_rate for branch in alternating.branches}
    alternating.remove()
    return rates


def _with_a_trunk_that_learns(rdp: ResidualDropPath, config: TrainConfig) -> ResidualDropPath:
    """Where frozen parts leave branches alone to learn, an iteration that drops them all would train nothing."""
    in_branches = {id(parameter) for branch in rdp.branches for parameter in branch.parameters()}
    if config.freeze_modules and not any(p.requires_grad and id(p) not in in_branches for p in rdp.model.parameters()):
        rdp.remove()
        raise UserError(
            "`freeze_modules` must leave something outside of residual branches that learns, such as the head; give "
            "fewer patterns, or `method` plain."
        )
    return rdp
