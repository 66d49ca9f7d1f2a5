"""Makes a network follow an `Iteration`: actions of branches, modes of norms, flags and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn

from .branch import Branch
from .discovery.found import Discovery
from .discovery.own_drop_path import OwnDropPath, restore, switch_off, switched_off
from .freezing.frozen_norms import FrozenNorms, refuse_compiled_norms
from .freezing.optimizer_guard import OptimizerGuard
from .freezing.ownership import Ownership, assign_owners
from .freezing.parameter_flags import ParameterFlags, SwitchedOff
from .freezing.training_forwards import TrainingForwards, WatchedForward, watch
from .freezing.tree_watch import TreeWatch
from .graph.module_kinds import ModuleKinds
from .iteration import Iteration, plain_iteration
from .options import Options
from .planning.plan import Plan
from .running.add_point import BranchState
from .running.block_forward import BlockForward
from .running.row_masks import RowMasks
from .running.shared_rewrites import SharedRewrites

FirstCall = Callable[[tuple[Any, ...], dict[str, Any]], None]


class Enforcement:
    """What acts in a network, while training forwards run and when an optimizer steps.

    `iteration` is in force, unless `instead` is given. `before_forward` is called before each training forward
    begins, and may change the iteration; so may `look_again`, when modules were replaced or added. `first_call` is
    called with the arguments of the first training forward of the model, which then runs by the model's forward.
    """

    def __init__(
        self,
        model: nn.Module,
        discovery: Discovery,
        options: Options,
        own_drop_path: Sequence[OwnDropPath],
        before_forward: Callable[[], None],
        first_call: FirstCall | None = None,
    ):
        refuse_compiled_norms(model, options.frozen_norm)
        self.model = model
        self.discovery = discovery
        self.own_drop_path = own_drop_path
        self.before_forward = before_forward
        self._first_call = first_call
        self.num_branches = len(discovery.branches)
        self.plain = self.iteration = self.in_force = plain_iteration(self.num_branches)
        self.instead: Iteration | None = None
        self.masks = RowMasks()
        self.norms = FrozenNorms(options.frozen_norm, self.masks)
        self.states = [BranchState(found.name, i, self.masks) for i, found in enumerate(discovery.branches)]
        self.shared = SharedRewrites(discovery.kinds or ModuleKinds(model))
        self.blocks = _install_blocks(discovery, self.states, self.shared)
        self.tree = TreeWatch(model)
        self.forwards = TrainingForwards(self)
        self.watched: list[WatchedForward] = []
        self._flags_off: list[SwitchedOff] = []
        self._own_rates: list[Any] = []
        self.guard = OptimizerGuard(self.parameters, self.frozen_parameters, check_values=options.check_frozen)
        self._look()
        self.guard.install()

    def shown_by_call(self, discovery: Discovery) -> None:
        """A call has shown the branches that were found without one; where they are used may differ."""
        self.discovery, self._first_call = discovery, None
        for block in self.blocks:
            block.follow_discovery(discovery)
        self._look()

    def look_again(self) -> None:
        """The network may have changed: who owns which module and parameter, as it is now."""
        self.kinds_now()
        self._look()

    def kinds_now(self) -> ModuleKinds:
        """Which modules are alike, as the network is now."""
        self.shared.kinds.forget()
        return self.shared.kinds

    def _look(self) -> None:
        self.ownership: Ownership = assign_owners(self.model, self.discovery)
        self.flags = ParameterFlags(self.model, self.ownership)
        self.norms.install(self.ownership)
        self.watched += watch(self.model, self.forwards)
        self.tree.look()

    def look_at_branches(self, branches: Sequence[Branch]) -> None:
        """Take over what is known of the branches as they are now."""
        for state, branch in zip(self.states, branches, strict=True):
            state.has_batch_statistics = branch.has_batch_statistics

    def learns(self) -> tuple[bool, ...]:
        """By branch, whether the user lets any of its parameters learn."""
        return tuple(self.flags.learns(index) for index in range(self.num_branches))

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """All parameters of the network, by name."""
        return self.flags.named()

    def frozen_parameters(self) -> Mapping[str, nn.Parameter]:
        """Those whose gradient must be None when an optimizer steps, by name."""
        return self.flags.named(self.iteration.without_gradient)

    def follow(self, iteration: Iteration, plan: Plan, *, stepping: bool) -> None:
        """From now on `iteration` is in force. Gradients of what it freezes become None.

        `stepping` from the iteration before: what that froze has none.
        """
        known = self.iteration.without_gradient if stepping else frozenset()
        begins = stepping or plan != self.masks.plan
        self.iteration = iteration
        self.masks.set_plan(plan)
        self._apply()
        self.flags.clear_gradients(iteration.without_gradient - known)
        if begins:
            self.flags.clear_gradients(iteration.begin_without_gradient)
        if stepping:
            self.guard.iteration_began()
        else:
            self.guard.plan_changed()

    @contextmanager
    def following(self, iteration: Iteration, *, in_evaluation: bool = False) -> Iterator[None]:
        """Meanwhile `iteration` is in force instead of the plan's."""
        before, self.instead = self.instead, iteration
        self.guard.remove()  # what is trained meanwhile is trained without the method
        self._apply()
        for block in self.blocks:
            block.paused, block.acts_in_evaluation = True, in_evaluation
        try:
            yield
        finally:
            self.instead = before
            self._apply()
            for block in self.blocks:
                block.paused, block.acts_in_evaluation = before is not None, False
            if before is None:
                self.guard.install()
            self.flags.clear_gradients(self.iteration.without_gradient)

    def begin_forward(self) -> None:
        if self.tree.changed():
            self.look_again()
        if self.instead is None:
            self.before_forward()
        self.masks.begin_forward()
        if self.instead is None:
            iteration = self.plain if self.tree.recalibrates() else self.iteration
            if iteration is not self.in_force:
                self._apply(iteration)
            self.guard.before_forward()
        self._own_rates = switch_off(self.own_drop_path)
        self._flags_off = self.flags.switch_off(self.in_force.frozen)

    def end_forward(self) -> None:
        self.flags.restore(self._flags_off)
        restore(self.own_drop_path[: len(self._own_rates)], self._own_rates)  # none, where beginning failed
        self._flags_off, self._own_rates = [], []

    @property
    def first_call(self) -> FirstCall | None:
        return self._first_call if self.instead is None else None

    def note_evaluation(self) -> None:
        self.guard.after_evaluation()

    def recomputation(self) -> Callable[[], AbstractContextManager[Any]]:
        """A part of the forward that runs now will run again, in its backward: as it ran now, whatever was since."""
        iteration, masks = self.in_force, self.masks.snapshot()

        @contextmanager
        def again() -> Iterator[None]:
            now, masks_now = self.in_force, self.masks.snapshot()
            self._apply(iteration)
            self.masks.restore(masks)
            flags_off = self.flags.switch_off(iteration.frozen)
            try:
                with switched_off(self.own_drop_path), self.forwards.recomputing():
                    yield
            finally:
                self.flags.restore(flags_off)
                self.masks.restore(masks_now)
                self._apply(now)

        return again

    def remove(self) -> None:
        """Leave the network as it was before; what others have wrapped around forwards of ours runs the plain ones."""
        self.guard.remove()
        self.iteration, self.instead = self.plain, None
        self._apply()
        self.forwards.active = False
        for block in self.blocks:
            block.paused = True
        for forward in [*reversed(self.watched), *reversed(self.norms.installed), *reversed(self.blocks)]:
            forward.uninstall()

    def _apply(self, iteration: Iteration | None = None) -> None:
        """Switch what differs."""
        self.in_force = iteration or self.instead or self.iteration
        for state, action in zip(self.states, self.in_force.actions, strict=True):
            state.action = action
        self.norms.frozen, self.norms.frozen_by_rows = self.in_force.frozen, self.in_force.frozen_by_rows


def _install_blocks(discovery: Discovery, states: list[BranchState], shared: SharedRewrites) -> list[BlockForward]:
    by_block: dict[nn.Module, dict[str, BranchState]] = {}
    for branch, state in zip(discovery.branches, states, strict=True):
        by_block.setdefault(branch.block, {})[branch.suffix] = state
    forwards = [BlockForward(block, own_states, discovery, shared) for block, own_states in by_block.items()]
    for forward in forwards:
        forward.install()
    return forwards
