"""What one iteration does to a network: a pure function of the plan, the options and the branches."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from .branch import Branch
from .freezing.ownership import TRUNK
from .options import Granularity, Options
from .planning.plan import Plan
from .running.actions import drop, drop_rows, learn_rows, run_without_graph, scale_by, with_gradient_of_inputs
from .running.add_point import Action

NOBODY: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Iteration:
    """What each branch does, who is frozen, and whose gradients go. Owners are indices of branches, and `TRUNK`.

    `actions`: by branch, what its add does; None: as written. `frozen`: parameters get no gradient while forwards
    run. `without_gradient`: gradients are None when an optimizer steps. `frozen_by_rows`: frozen if no row of the
    batch drops them, which is known only while running. `begin_without_gradient`: no gradient of before counts.
    """

    actions: tuple[Action | None, ...]
    frozen: frozenset[int] = NOBODY
    without_gradient: frozenset[int] = NOBODY
    frozen_by_rows: frozenset[int] = NOBODY
    begin_without_gradient: frozenset[int] = NOBODY


def plain_iteration(num_branches: int) -> Iteration:
    """The full network, all of it learning."""
    return Iteration((None,) * num_branches)


def iteration_of(plan: Plan, options: Options, branches: Sequence[Branch]) -> Iteration:
    """The method (DESIGN.md section 1), as far as a plan decides it."""
    if plan.kind == "drop_path":
        return _drop_path(plan, options)
    if options.trains == "all":
        return plain_iteration(len(branches))
    return _dropped_part(plan, options, branches)


def _drop_path(plan: Plan, options: Options) -> Iteration:
    """Dropped branches do not run; kept ones are scaled, if by `1 / keep_prob` at all."""
    if_dropped, if_kept = _drop_path_actions(plan.drop_rates, options.scale_by_keep, options.granularity)
    choices = zip(plan.is_dropped, if_dropped, if_kept, strict=True)
    actions = tuple([dropped if is_dropped else kept for is_dropped, dropped, kept in choices])
    not_run = frozenset(compress(itertools.count(), plan.is_dropped))
    if options.granularity == "sample":
        return Iteration(actions, begin_without_gradient=not_run)
    return Iteration(actions, without_gradient=not_run)


@functools.lru_cache(maxsize=16)  # rates change seldom
def _drop_path_actions(
    drop_rates: tuple[float, ...], scale_by_keep: bool, granularity: Granularity
) -> tuple[list[Action], list[Action | None]]:
    """By branch, what it does if it is dropped, and if it is kept."""
    factors = [1.0 / (1.0 - rate) if scale_by_keep and 0.0 < rate < 1.0 else 1.0 for rate in drop_rates]
    if_dropped = [drop_rows(factor) if granularity == "sample" else drop for factor in factors]
    return if_dropped, [None if factor == 1.0 else scale_by(factor) for factor in factors]


def _dropped_part(plan: Plan, options: Options, branches: Sequence[Branch]) -> Iteration:
    """Everything runs; only what was dropped learns."""
    dropped = plan.is_dropped
    by_row = options.granularity == "sample"
    learning = learn_rows if by_row else None
    frozen_action = None if options.freeze == "parameters" else run_without_graph
    actions: list[Action | None] = [learning if is_dropped else frozen_action for is_dropped in dropped]
    # Where gradients begin, a group norm needs that of its input; by rows any dropped branch may be the first.
    learning_branches = list(compress(itertools.count(), dropped))
    for index in learning_branches if by_row else learning_branches[:1]:
        if branches[index].has_group_norm:
            actions[index] = with_gradient_of_inputs(actions[index])
    frozen = list(compress(itertools.count(), map(operator.not_, dropped)))
    if not options.train_trunk:
        frozen.append(TRUNK)
    rows = frozenset(learning_branches) if by_row else NOBODY
    owners = frozenset(frozen)
    return Iteration(tuple(actions), owners, owners, rows, rows)
