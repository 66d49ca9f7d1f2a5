"""`ResidualDropPath`: the method over somebody's model and training loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from .branch import Branch, make_branches, nominal_rates, warn_of_raised_rates, warn_of_sequences_first
from .describe import describe
from .discovery.found import Discovery
from .discovery.network_walk import discover, discover_in_call
from .discovery.own_drop_path import find_own_drop_path, switched_off
from .enforcement import Enforcement
from .forward_override import own_override
from .garbage import garbage_waits
from .iteration import Iteration, iteration_of, plain_iteration
from .options import STATE_FORMAT, Options, make_options
from .planning.cycles import FIRST, Beginning, Kind, cycle_at
from .planning.plan import Plan, make_plan
from .planning.plan_options import PlanOptions
from .running.add_point import Action
from .running.block_forward import BlockForward
from .signature import signature_with
from .torch_internals import modules_below

_NOT_GIVEN = object()


def is_followed(model: nn.Module) -> bool:
    """Whether a `ResidualDropPath` acts on the model, or on a part of it."""
    return any(own_override(module, BlockForward) is not None for module in modules_below(model))


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

    Dropped branches do not run, frozen ones get no weight gradient, so an iteration costs 0.6 to 0.8
    of a plain one and a cycle of two twice that. Evaluation, `state_dict` keys and copies of the model are
    those of the plain model. Order: construct this, then the optimizer, then wrap (DDP, FSDP2), then load.

    Args:
        model: any network with residual branches; those whose forward can be traced are found by
            themselves, for others see `register_block`.
        drop_path_rate: the largest drop rate, in [0, 1); 0 is plain training. A branch that has nothing to
            train, its parameters frozen by the user or shared with others, is dropped by drop path alone.
        rate_over_depth: `"linear"`, from 0 at the first block to the rate at the last (timm's rule), or
            `"uniform"`. `"linear"` drops half as much, so it saves half as much.
        drop_rates: rates in [0, 1) by glob pattern over branch names, `{"layer4.*": 0.3}`; the last pattern that
            matches counts, and 0 is never dropped.
        include: glob patterns; only branches of these names are dropped.
        exclude: glob patterns; branches of these names are never dropped.
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
        trains: what `dropped_part` iterations train. `"last"`: what the last draw of their cycle dropped. `"union"`:
            what any draw of it dropped, row by row too; a cycle of `"random"` is a run of `drop_path` iterations and
            the `dropped_part` ones that follow. Two controls: `"unrelated"`, a random set of the same distribution,
            independent of what was dropped; `"all"`, everything, the trunk included. What is dropped does not depend on
            it, but for where cycles end under `empty_draw="plain"`: with `"union"`, where no draw dropped anything.
        draw: `"independent"`: each branch by itself. `"balanced"`: each branch at exactly its rate; in each draw as
            many branches as their rates add up to, rounded down or up; and, while rates stay, in each deck of 20 draws
            branches of equal rate equally often, up to one. Of neighbours about as many are dropped in every draw, so
            no plan keeps much more memory than another. With `granularity="sample"` rows are the draws of decks.
        empty_draw: what becomes of a draw to be trained that drops nothing. `"redraw"`: it is drawn again, so that the
            effective rates are above the nominal ones (balanced: if these add up to less than 1). `"plain"`: the
            iteration is plain, nothing is scaled, and a new cycle begins with the next one; rates stay nominal. Not
            with `granularity="sample"`.
        rate_over_time: a factor on the rates over training: `None` or `"constant"`, `"warmup"` (rises over
            the first tenth), `"early"` (the first half only), `"late"` (the second half only), `"decay"` (falls to 0
            over four fifths, the last fifth is plain training), or a function from progress in [0, 1] to a factor in
            [0, 1]. Needs `total_iterations`.
        total_iterations: optimizer updates of the whole training, for `rate_over_time`.
        train_trunk: let the trunk learn in `dropped_part` iterations too.
        check_frozen: compare sampled values of frozen parameters around each optimizer step.
        example: a batch as the model is called with (a tensor, a tuple of arguments, or a dict of keyword
            arguments). One forward of the plain model on it shows what no code shows. Without it, branches are those
            that can be found in the code; where that leaves a doubt, the first training forward is that call.
        options: all options together, in the place of keywords.
        seed: of the draws, which are a pure function of (seed, iteration): the same on every rank.

    Raises:
        NoResidualBranchError: no residual branch was found; the message has what was looked for.
        TypeError: an unknown option, or `options` and keywords at once.
        ValueError: an option outside its allowed values, or one that the model's norms cannot follow.
    """

    discovery: Discovery
    branches: tuple[Branch, ...]
    plan: Plan

    def __init__(
        self,
        model: nn.Module,
        drop_path_rate: Any = _NOT_GIVEN,
        *,
        options: Options | None = None,
        example: Any = None,
        **keywords: Any,
    ):
        if drop_path_rate is not _NOT_GIVEN:
            keywords["drop_path_rate"] = drop_path_rate
        self.options: Options = make_options(options, keywords)
        if is_followed(model):
            raise ValueError("`model` is already under a ResidualDropPath; call its `remove()` first.")
        self.model: nn.Module = model
        self._own_drop_path = find_own_drop_path(model)
        self._compile_options: dict[str, Any] | None = None
        self._active = True
        self._state_to_load: dict[str, Any] | None = None
        with garbage_waits():
            with switched_off(self._own_drop_path):  # as the model will run, and the same whatever its rates are
                self.discovery = discover(model) if example is None else discover(model, example)
            self._begins = FIRST  # the cycle in force
            self._follow_discovery()
            self._go_to(0)
        warn_of_raised_rates(self.branches, self.options)
        warn_of_sequences_first(self.discovery, self.options)

    def _follow_discovery(self) -> None:
        """Make the model follow iterations over the branches found."""
        self._rates = nominal_rates(self.model, self.discovery, self.options, self._own_drop_path)
        acting = any(self._rates)  # rates of 0 are plain training, the model's own drop path included
        own = self._own_drop_path if acting else ()
        self._enforcement = Enforcement(
            self.model,
            self.discovery,
            self.options,
            own,
            self._take_notice,
            self._follow_first_call if self.discovery.needs_call else None,
        )
        self._look_at_branches()

    @garbage_waits()
    def _follow_first_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The first training forward: what its call shows takes the place of what was found without one."""
        with switched_off(self._own_drop_path):
            found = discover_in_call(self.model, args, kwargs, self._enforcement.kinds_now())
        if found is None:
            self._enforcement.shown_by_call(self.discovery)
            return
        before, self.discovery = self.discovery, found
        if found.holds_same_branches(before):
            self._enforcement.shown_by_call(found)
        else:
            self._enforcement.remove()
            iteration = self.iteration
            self._follow_discovery()
            if self._compile_options is not None:
                self.compile(**self._compile_options)
            self._go_to(iteration)
        if self._state_to_load is not None:
            state, self._state_to_load = self._state_to_load, None
            self.load_state_dict(state)

    @property
    def iteration(self) -> int:
        """The number of `step()` calls so far."""
        return self.plan.iteration

    @property
    def kind(self) -> Kind:
        """`"drop_path"` or `"dropped_part"`: the kind of the iteration in force."""
        return self.plan.kind

    @property
    def shared_parameters(self) -> tuple[str, ...]:
        """Parameters that several branches, or a branch and the trunk, use: they learn with the trunk."""
        return self._enforcement.ownership.shared

    def frozen_parameters(self) -> Mapping[str, nn.Parameter]:
        """Parameters that get no gradient in the iteration in force, by name: of what is frozen, or does not run."""
        return self._enforcement.frozen_parameters()

    def step(self) -> None:
        """On to the next iteration; call it once after each optimizer update, also a skipped one.

        Gradients of all that the new plan freezes become `None`, so optimizers leave it alone. Raises
        `FrozenParameterMovedError` if values of what was frozen have changed.
        """
        self._require_active("step")
        self._enforcement.guard.check_between()
        self._go_to(self.plan.iteration + 1, stepping=True)

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
        self._compile_options = options
        for block in self._enforcement.blocks:
            block.compile(options)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run everything as the plain model, in training mode too; the iteration stays.

        For recalibrating norms or probing. The model's own drop path stays off. Gradients that are made inside for
        what is frozen become None at the end.
        """
        self._require_active("paused")
        with self._enforcement.following(plain_iteration(len(self.branches))):
            yield
        self._take_notice()

    @contextmanager
    def acting(self, actions: Sequence[Action | None], *, in_evaluation: bool = False) -> Iterator[None]:
        """`paused()`, but each branch runs by its entry of `actions` (`core/running/`); None: as written.

        For measurements. In evaluation mode the plain model runs here too, unless `in_evaluation`.
        """
        self._require_active("acting")
        if len(actions) != len(self.branches):
            raise ValueError(
                f"`actions` must have an entry for each of {len(self.branches)} branches, got {len(actions)}."
            )
        with self._enforcement.following(Iteration(tuple(actions)), in_evaluation=in_evaluation):
            yield

    def refresh(self) -> None:
        """Take notice at once of changed parameters: `requires_grad` set by hand, modules replaced or added.

        Each training forward does so by itself. Values that were written into frozen parameters by hand count as
        theirs from here on.
        """
        self._require_active("refresh")
        self._enforcement.look_again()
        self._look_at_branches()
        self._go_to(self.iteration)

    def remove(self) -> None:
        """Leave the model as it was before: forwards and hooks."""
        if self._active:
            self._enforcement.remove()
            self._active = False

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs, as plain values: iteration and beginning of its cycle, and options to compare."""
        return {
            "format": STATE_FORMAT,
            "iteration": self.iteration,
            "cycle": dataclasses.asdict(self._begins),
            "branches": [branch.name for branch in self.branches],
            "options": self.options.as_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at the iteration of `state`, mid-cycle too. Raises `ValueError` if branches or options differ.

        States of earlier versions are understood; `total_iterations` may have grown.
        """
        self._require_active("load_state_dict")
        own = self.state_dict()
        if (version := state.get("format", 1)) not in range(1, STATE_FORMAT + 1):
            raise ValueError(
                f"`state` has format {version!r}, this version knows 1 to {STATE_FORMAT}; update residualdroppath."
            )
        not_needed = {"format"} if version >= 3 else {"format", "cycle"}
        if missing := own.keys() - state.keys() - not_needed:
            raise ValueError(f"`state` must come from `state_dict()`; it lacks {sorted(missing)}.")
        if type(iteration := state["iteration"]) is not int or iteration < 0:
            raise ValueError(f"`state['iteration']` must be a non-negative integer, got {iteration!r}.")
        begins = Beginning.from_state(state.get("cycle"), iteration)
        if state["branches"] != own["branches"] and self.discovery.needs_call:
            self._state_to_load = state  # of branches that a call has shown: compared when one has shown them here
        elif state["branches"] != own["branches"]:
            raise ValueError(
                f"The state was saved for {len(state['branches'])} branches ({', '.join(state['branches'][:3])}, ...), "
                f"this model has {len(own['branches'])} ({', '.join(own['branches'][:3])}, ...); "
                "load it with the model it was saved with."
            )
        self.options.require_resumable(state["options"])
        self._begins = begins
        self._go_to(iteration)

    def __repr__(self) -> str:
        return describe(
            type(self).__name__,
            self.model,
            self.options,
            self.plan,
            self.branches,
            self.discovery,
            self.shared_parameters,
            self._enforcement.own_drop_path,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy or pickle, with its model: constructed anew around the copy of the model."""
        return _reconstruct, (
            self.model,
            self.options,
            self.iteration,
            self._compile_options,
            self._active,
            self._begins,
            type(self),
        )

    def _take_notice(self) -> None:
        """Before a training forward: branches and plan follow what the user lets learn now."""
        if self._enforcement.learns() != self._learns:
            self._look_at_branches()
            self._go_to(self.iteration)

    def _look_at_branches(self) -> None:
        """Which branches have something to train, and so may be dropped."""
        self._learns = self._enforcement.learns()
        self.branches = make_branches(
            self.discovery, self._enforcement.ownership, self._rates, self._learns, self.options
        )
        self._enforcement.look_at_branches(self.branches)
        self._plan_options = PlanOptions(
            names=tuple(branch.name for branch in self.branches),
            drop_rates=tuple(branch.drop_rate for branch in self.branches),
            schedule=self.options.schedule,
            granularity=self.options.granularity,
            rate_over_time=self.options.rate_factor,
            total_iterations=self.options.total_iterations,
            seed=self.options.seed,
            trains=self.options.trains,
            draw=self.options.draw,
            empty_draw=self.options.empty_draw,
        )

    def _go_to(self, iteration: int, *, stepping: bool = False) -> None:
        self._begins = cycle_at(self._plan_options, iteration, self._begins).begins
        self.plan = make_plan(self._plan_options, iteration, self._begins)
        effect = iteration_of(self.plan, self.options, self.branches)
        self._enforcement.follow(effect, self.plan, stepping=stepping)

    def _starts_cycle(self) -> bool:
        if self.options.schedule == "random":
            cycle = cycle_at(self._plan_options, self.iteration, self._begins)
            return self.iteration <= cycle.deciding
        return self.iteration == self._begins.iteration

    def _require_active(self, method: str) -> None:
        if not self._active:
            raise RuntimeError(f"`{method}()` was called after `remove()`; construct a new ResidualDropPath.")


def _reconstruct(
    model: nn.Module,
    options: Options,
    iteration: int,
    compile_options: dict[str, Any] | None,
    active: bool,
    begins: Beginning = FIRST,
    kind: type[ResidualDropPath] = ResidualDropPath,
) -> ResidualDropPath:
    rdp = kind(model, options=options)
    rdp._begins = begins
    rdp._go_to(iteration)
    if compile_options is not None:
        rdp.compile(**compile_options)
    if not active:
        rdp.remove()
    return rdp


ResidualDropPath.__signature__ = signature_with(  # pyright: ignore[reportAttributeAccessIssue]
    dataclasses.fields(Options)
)
