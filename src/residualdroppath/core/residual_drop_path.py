"""`ResidualDropPath`: the method over somebody's model and training loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from .branch import make_branches
from .describe import describe
from .discovery.found import Discovery
from .discovery.network_walk import discover
from .freezing.frozen_norms import FrozenNorm, FrozenNorms, has_batch_statistics, refuse_compiled_norms
from .freezing.optimizer_guard import refuse_whole_vector_optimizers
from .freezing.ownership import TRUNK
from .freezing.parameter_flags import ParameterFlags
from .options import Freeze, Options
from .planning.plan import (
    Granularity,
    Kind,
    Plan,
    PlanOptions,
    RateOverDepth,
    RateOverTime,
    Schedule,
    make_plan,
    scheduled_kind,
)
from .running.actions import drop, drop_rows, learn_rows, run_without_graph, scale_by, with_gradient_of_inputs
from .running.add_point import Action, BranchState
from .running.block_forward import BlockForward
from .running.row_masks import RowMasks


class ResidualDropPath:
    """Trains a residual network by ResidualDroppath (arXiv 2411.09475).

    Iterations alternate: a `drop_path` iteration drops random residual branches and trains the rest;
    a `dropped_part` iteration runs the full network and trains only what was dropped. Call `step()`
    once after each optimizer update, like a learning-rate scheduler:

        >>> rdp = ResidualDropPath(model, drop_path_rate=0.1)
        >>> for images, labels in loader:
        ...     criterion(model(images), labels).backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     rdp.step()

    Dropped branches do not run, frozen ones get no weight gradient, so an iteration costs about 0.7 of
    a plain one and a cycle of two about 1.4. Evaluation, `state_dict` keys and copies of the model are
    those of the plain model. Order: construct this, then the optimizer, then wrap (DDP, FSDP2), then load.

    Args:
        model: any network with residual branches; those whose forward can be traced are found by
            themselves, for others see `register_block`.
        drop_path_rate: the largest drop rate, in [0, 1); 0 is plain training. A branch that has nothing to
            train, its parameters frozen by the user or shared with others, is dropped by drop path alone.
        rate_over_depth: `"linear"`, from 0 at the first block to the rate at the last (timm's rule), or
            `"uniform"`. `"linear"` drops half as much, so it saves half as much.
        freeze: in `dropped_part` iterations, `"parameters"` lets gradient flow through frozen branches,
            the exact gradient for the dropped ones; `"stop_gradient"` runs frozen branches without a
            graph: cheaper, and gradient reaches a dropped branch through shortcuts and dropped branches.
        granularity: `"batch"` drops a branch for the whole batch; `"sample"` (with
            `freeze="stop_gradient"`) for each row, the first dimension of the block's input, by itself.
            Branches with batch norm are then computed whole and nothing is saved on them.
        scale_by_keep: divide a kept branch by its keep probability in `drop_path` iterations.
        frozen_norm: in `dropped_part` iterations, norms with running statistics in frozen parts use and
            update batch statistics (`"update"`), use them and leave all buffers alone (`"batch"`), or use
            running statistics (`"running"`).
        schedule: `(a, b)`: a `drop_path` iterations, then b `dropped_part` iterations that train what the
            last of the a dropped; `(1, 0)` is drop path alone. `"random"`: either kind with probability 1/2.
        rate_over_time: a factor on the rates over training: `None` or `"constant"`, `"warmup"` (rises over
            the first tenth), `"early"` (the first half only), `"late"` (the second half only), or a
            function from progress in [0, 1] to a factor in [0, 1]. Needs `total_iterations`.
        total_iterations: optimizer updates of the whole training, for `rate_over_time`.
        train_trunk: let the trunk learn in `dropped_part` iterations too.
        seed: of the draws, which are a pure function of (seed, iteration): the same on every rank.

    Raises:
        NoResidualBranchError: no residual branch was found; says what was looked for.
        ValueError: an option outside its allowed values, or one that the model's norms cannot follow.
    """

    def __init__(
        self,
        model: nn.Module,
        drop_path_rate: float = 0.1,
        *,
        rate_over_depth: RateOverDepth = "linear",
        freeze: Freeze = "parameters",
        granularity: Granularity = "batch",
        scale_by_keep: bool = True,
        frozen_norm: FrozenNorm = "update",
        schedule: Schedule = (1, 1),
        rate_over_time: RateOverTime = None,
        total_iterations: int | None = None,
        train_trunk: bool = False,
        seed: int = 0,
    ):
        self.options = Options(
            drop_path_rate=drop_path_rate,
            rate_over_depth=rate_over_depth,
            freeze=freeze,
            granularity=granularity,
            scale_by_keep=scale_by_keep,
            frozen_norm=frozen_norm,
            schedule=schedule,
            rate_over_time=rate_over_time,
            total_iterations=total_iterations,
            train_trunk=train_trunk,
            seed=seed,
        )
        if any(isinstance(vars(module).get("forward"), BlockForward) for module in model.modules()):
            raise ValueError("`model` is already under a ResidualDropPath; call its `remove()` first.")
        self.model = model
        self.discovery = discover(model)
        self._norms = FrozenNorms(frozen_norm)
        self._look_at_parameters()
        self._masks = RowMasks()
        self._states = [BranchState(branch.name, index) for index, branch in enumerate(self.branches)]
        self._look_at_norms()
        self._forwards = _install(self.discovery, self._states)
        self._optimizer_hook = refuse_whole_vector_optimizers(model)
        self._active = True
        self._go_to(0)

    @property
    def iteration(self) -> int:
        """The number of `step()` calls so far."""
        return self.plan.iteration

    @property
    def kind(self) -> Kind:
        """`"drop_path"` or `"dropped_part"`: the kind of the iteration in force."""
        return self.plan.kind

    def step(self) -> None:
        """On to the next iteration; call it once after each optimizer update, also a skipped one.

        Gradients of all that the new plan freezes become `None`, so optimizers leave it alone.
        """
        self._require_active("step")
        self._go_to(self.iteration + 1)

    def cycle(self) -> Iterator[Plan]:
        """Iterations up to the end of the cycle, for one batch: `for _ in rdp.cycle(): ...` calls `step()` itself."""
        while True:
            yield self.plan
            self.step()
            if self._starts_cycle():
                return

    def compile(self, **options: Any) -> None:
        """Compile each residual branch by itself, with `torch.compile(branch, **options)`.

        What is dropped or frozen is decided outside of the graphs: a branch takes a few, whatever the number of
        plans. Compiling the whole model, `torch.compile(model)`, leaves the blocks as they are, so call this too.
        Not undone by `paused()`, which runs the plain forwards; registered blocks are not compiled.
        """
        self._require_active("compile")
        for forward in self._forwards:
            forward.compile(options)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run everything as the plain model, in training mode too, and with the user's `requires_grad`.

        For recalibrating norms or probing; the iteration stays. Flags changed inside are the user's.
        """
        self._require_active("paused")
        self._release()
        self._set_paused(True)
        try:
            yield
        finally:
            self._set_paused(False)
            self.refresh()

    @contextmanager
    def acting(self, actions: Sequence[Action | None], *, in_evaluation: bool = False) -> Iterator[None]:
        """`paused()`, but each branch does what its entry of `actions` says (`core/state.py`); None: as written.

        For measurements. In evaluation mode the plain model runs here too, unless `in_evaluation`.
        """
        self._require_active("acting")
        with self.paused():
            for state, action in zip(self._states, actions, strict=True):
                state.action = action
            for forward in self._forwards:
                forward.acts_in_evaluation = in_evaluation
            try:
                yield
            finally:
                for forward in self._forwards:
                    forward.acts_in_evaluation = False

    def refresh(self) -> None:
        """Take notice of changed parameters: `requires_grad` set by hand, modules replaced or added.

        While a parameter is frozen by the plan its own flag cannot be told; change flags in `paused()`.
        """
        self._require_active("refresh")
        self._release()
        self._look_at_parameters()
        self._look_at_norms()
        self.plan = make_plan(self._plan_options, self.iteration)
        self._enforce_plan()

    def remove(self) -> None:
        """Leave the model as it was before: forwards, flags and hooks."""
        if self._active:
            self._release()
            for forward in self._forwards:
                forward.uninstall()
            self._optimizer_hook.remove()
            self._active = False

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs, as plain values: the iteration, and the options to be compared."""
        return {
            "iteration": self.iteration,
            "branches": [branch.name for branch in self.branches],
            "options": self.options.as_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at the iteration of `state`, mid-cycle too. Raises `ValueError` if branches or options differ."""
        self._require_active("load_state_dict")
        own = self.state_dict()
        if missing := own.keys() - state.keys():
            raise ValueError(f"`state` must come from `state_dict()`; it lacks {sorted(missing)}.")
        if state["branches"] != own["branches"]:
            raise ValueError(
                f"The state was saved for {len(state['branches'])} branches ({', '.join(state['branches'][:3])}, ...), "
                f"this model has {len(own['branches'])} ({', '.join(own['branches'][:3])}, ...); "
                "load it with the model it was saved with."
            )
        for name, value in own["options"].items():
            if state["options"].get(name) != value:
                raise ValueError(
                    f"The state was saved with {name}={state['options'].get(name)!r}, this one has {value!r}; "
                    "construct ResidualDropPath with the same options to resume."
                )
        self._go_to(state["iteration"])

    @property
    def shared_parameters(self) -> tuple[str, ...]:
        """Parameters that several branches, or a branch and the trunk, use: they learn with the trunk."""
        return self._ownership.shared

    def __repr__(self) -> str:
        return describe(self)

    def _look_at_parameters(self) -> None:
        """Who owns which, and which branches have something to train; the flags are the user's now."""
        self.branches, self._ownership = make_branches(self.model, self.discovery, self.options)
        self._flags = ParameterFlags(self._ownership)
        self._plan_options = PlanOptions(
            names=tuple(branch.name for branch in self.branches),
            drop_rates=tuple(branch.drop_rate for branch in self.branches),
            schedule=self.options.schedule,
            granularity=self.options.granularity,
            rate_over_time=self.options.rate_factor,
            total_iterations=self.options.total_iterations,
            seed=self.options.seed,
        )

    def _go_to(self, iteration: int) -> None:
        if self._norms.mode != "update" and self._holds_replaced_modules():  # by `convert_sync_batchnorm`
            self._release()
            self._look_at_parameters()
        self.plan = make_plan(self._plan_options, iteration)
        self._enforce_plan()
        if self.options.granularity == "sample":
            # By rows, it is known only while running which of the dropped branches get a gradient.
            self._flags.clear_gradients(self._owners(dropped=True))

    def _enforce_plan(self) -> None:
        """Make actions, norms, flags and gradients those of the plan. Does nothing the second time."""
        plan, by_row = self.plan, self.options.granularity == "sample"
        dropped, kept = self._owners(dropped=True), self._owners(dropped=False)
        self._masks.set_plan(plan)
        for index, state in enumerate(self._states):
            state.action = self._action(index, index in dropped)
        if plan.kind == "dropped_part":
            for state in (self._states[index] for index in (dropped if by_row else dropped[:1])):
                if state.has_group_norm:
                    state.action = with_gradient_of_inputs(state.action)

        frozen = [] if plan.kind == "drop_path" else kept + ([] if self.options.train_trunk else [TRUNK])
        not_run = dropped if plan.kind == "drop_path" and not by_row else []
        self._flags.freeze(frozen)
        self._flags.clear_gradients(frozen + not_run)
        self._norms.uninstall()
        for owner in frozen:
            self._norms.install(self._ownership.modules[owner])
        if plan.kind == "dropped_part" and by_row:
            for owner in dropped:
                self._norms.install(self._ownership.modules[owner], lambda owner=owner: not self._masks.any_row(owner))

    def _look_at_norms(self) -> None:
        refuse_compiled_norms(self.model, self._norms.mode)
        for state, found in zip(self._states, self.discovery.branches, strict=True):
            state.has_batch_statistics = has_batch_statistics(found.modules())
            state.has_group_norm = any(isinstance(module, nn.GroupNorm) for module in found.modules())

    def _holds_replaced_modules(self) -> bool:
        present = set(self.model.modules())
        return any(module not in present for modules in self._ownership.modules.values() for module in modules)

    def _owners(self, *, dropped: bool) -> list[int]:
        """Indices of the branches that the plan drops, or of those that it keeps."""
        names = set(self.plan.dropped)
        return [index for index, branch in enumerate(self.branches) if (branch.name in names) == dropped]

    def _action(self, index: int, is_dropped: bool) -> Action | None:
        by_row = self.options.granularity == "sample" and is_dropped
        if self.plan.kind == "drop_path":
            keep_prob = 1.0 - self.plan.drop_rates[index]
            factor = 1.0 / keep_prob if self.options.scale_by_keep and keep_prob > 0 else 1.0
            if by_row:
                return drop_rows(self._masks, factor)
            return drop if is_dropped else (scale_by(factor) if factor != 1.0 else None)
        if self.options.freeze == "parameters":
            return None
        if by_row:
            return learn_rows(self._masks)
        return None if is_dropped else run_without_graph

    def _release(self) -> None:
        """Back to the plain model, the plan kept."""
        for state in self._states:
            state.action = None
        self._norms.uninstall()
        self._flags.freeze(())

    def _set_paused(self, paused: bool) -> None:
        for forward in self._forwards:
            forward.paused = paused

    def _starts_cycle(self) -> bool:
        if self.options.schedule == "random":
            return scheduled_kind(self._plan_options, self.iteration) == "drop_path"
        return self.iteration % sum(self.options.schedule) == 0

    def _require_active(self, method: str) -> None:
        if not self._active:
            raise RuntimeError(f"`{method}()` was called after `remove()`; construct a new ResidualDropPath.")


def _install(discovery: Discovery, states: list[BranchState]) -> list[BlockForward]:
    blocks: dict[nn.Module, dict[str, BranchState]] = {}
    for branch, state in zip(discovery.branches, states, strict=True):
        blocks.setdefault(branch.block, {})[branch.suffix] = state
    forwards = [
        BlockForward(
            block,
            block_states,
            output_may_be_overwritten=discovery.outputs_may_be_overwritten,
            outputs_read=discovery.outputs_read.get(block),
        )
        for block, block_states in blocks.items()
    ]
    for forward in forwards:
        forward.install()
    return forwards
