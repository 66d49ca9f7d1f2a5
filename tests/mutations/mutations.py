"""Faults that somebody might write into `core`: about one for each of its decisions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CORE = Path("residualdroppath") / "core"


@dataclass(frozen=True)
class Mutation:
    """`before`, which is once in `file` (under `core`), becomes `after`; some of `tests` must then fail.

    `tests` are of the default tier and quick: files, or single tests as pytest names them.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def mutated(self, source: Path) -> str:
        """The text of the file with the fault. Raises `ValueError` where `before` is not in it exactly once."""
        text = (source / CORE / self.file).read_text()
        if (count := text.count(self.before)) != 1:
            raise ValueError(
                f"`before` of mutation {self.name!r} must be in {self.file} once, got {count} times; "
                "follow what the source has become."
            )
        return text.replace(self.before, self.after)


def _mutation(name: str, file: str, before: str, after: str, *tests: str) -> Mutation:
    return Mutation(name, file, before, after, tuple(f"tests/core/{test}" for test in tests))


MUTATIONS = (
    # the class
    _mutation(
        "DropPath trains what it dropped",
        "drop_path.py",
        "ALONE = (1, 0)",
        "ALONE = (1, 1)",
        "test_drop_path.py",
    ),
    _mutation(
        "a copy of DropPath is the method",
        "residual_drop_path.py",
        "            type(self),\n",
        "            ResidualDropPath,\n",
        "test_drop_path.py::test_copies_stay_what_they_are",
    ),
    _mutation(
        "rows that are no samples pass unseen",
        "running/row_masks.py",
        "len(self._places) == 2",
        "len(self._places) == 3",
        "test_row_masks.py",
    ),
    # planning
    _mutation(
        "draws repeat in every iteration",
        "planning/draws.py",
        'f"residualdroppath/{seed}/{iteration}/{stream}"',
        'f"residualdroppath/{seed}/{stream}"',
        "test_draws.py",
    ),
    _mutation(
        "effective rates are nominal",
        "planning/draws.py",
        "min(1.0, rate / some_dropped)",
        "min(1.0, rate)",
        "test_draws.py::test_effective_rates",
    ),
    _mutation(
        "one empty row draws all rows again",
        "planning/draws.py",
        "torch.where(empty[:, None], redrawn, dropped)",
        "redrawn",
        "test_draws.py::test_rows_that_are_not_empty_are_not_redrawn",
    ),
    _mutation(
        "all branches after the first dropped one are dropped",
        "planning/draws.py",
        "(branch > first) & (again[:, 1:] < rates)",
        "(branch > first)",
        "test_draws.py",
    ),
    _mutation(
        "a dropped_part iteration draws for itself",
        "planning/plan.py",
        "decided_at = min(iteration, cycle.deciding)",
        "decided_at = iteration",
        "test_plan.py::test_dropped_part_trains_what_the_last_drop_path_iteration_dropped",
    ),
    _mutation(
        "every draw is with effective rates",
        "planning/cycles.py",
        "nonempty=any(nominal) and decides and",
        "nonempty=any(nominal) and",
        "test_plan.py::test_only_deciding_draws_use_effective_rates",
    ),
    _mutation(
        "rates over time are those of the iteration itself",
        "planning/plan.py",
        "decides = draw_at(options, cycle, decided_at)",
        "now = draw_at(options, cycle, iteration).nominal_rates\n"
        "    decides = replace(draw_at(options, cycle, decided_at), nominal_rates=now)",
        "test_plan.py::test_dropped_part_belongs_to_the_draw_even_where_its_own_rate_would_be_zero",
    ),
    _mutation(
        "union forgets the first draw of a cycle",
        "planning/plan.py",
        "return draws_of(options, cycle)",
        "return draws_of(options, cycle)[-2:]",
        "test_cycles.py::test_union_is_what_any_draw_of_the_cycle_dropped",
    ),
    _mutation(
        "a control trains what was dropped",
        "planning/plan.py",
        'nonempty=True, stream="unrelated"',
        'nonempty=True, stream="drop"',
        "test_cycles.py::test_unrelated_is_of_the_same_distribution_and_not_what_was_dropped",
    ),
    _mutation(
        "a cycle goes on after a draw that dropped nothing",
        "planning/cycles.py",
        "cycle.num_drop_path, 0, is_empty=True)",
        "cycle.num_drop_path, cycle.num_dropped_part, is_empty=True)",
        "test_cycles.py::test_an_empty_draw_is_a_plain_iteration_and_the_next_one_draws_again",
    ),
    _mutation(
        "kept branches are scaled in a plain iteration",
        "planning/plan.py",
        "nominal_rates=tuple(0.0 for _ in options.names), ",
        "",
        "test_cycles.py::test_an_empty_draw_is_a_plain_iteration_and_the_next_one_draws_again",
    ),
    _mutation(
        "decks forget the draws of the cycles before",
        "planning/cycles.py",
        "number=cycle.begins.num_draws + iteration - cycle.begins.iteration",
        "number=iteration",
        "test_balanced_draws.py::test_draws_go_through_deck_after_deck",
    ),
    _mutation(
        "strata are cut alike in all decks",
        "planning/balanced.py",
        "in in_play], 1.0 - shift):",
        "in in_play], 1.0):",
        "test_balanced_draws.py::test_neighbours_run_together_and_are_dropped_together_now_and_then",
    ),
    _mutation(
        "balanced rates are rounded down",
        "planning/balanced.py",
        "math.floor(offset + DECK",
        "math.floor(DECK",
        "test_balanced_draws.py::test_every_rate_is_exact_for_every_draw",
    ),
    _mutation(
        "extra drops of all strata fall on the same draws",
        "planning/balanced.py",
        "turn = (turn + num_extra) % DECK",
        "turn = 0",
        "test_balanced_draws.py::test_counts_are_sums_of_rates_rounded_down_or_up",
    ),
    _mutation(
        "a resumed training begins its cycles anew",
        "residual_drop_path.py",
        "        self._begins = begins\n",
        "        self._begins = Beginning(iteration, 0)\n",
        "test_cycles.py::test_resumed_anywhere_plans_are_those_of_an_uninterrupted_training",
    ),
    _mutation(
        "the first block is dropped too",
        "planning/plan.py",
        "drop_path_rate * block / last for",
        "drop_path_rate * (block + 1) / (last + 1) for",
        "test_plan.py::test_rates_over_depth",
    ),
    _mutation(
        "the first pattern that matches counts",
        "planning/rates.py",
        "in reversed(by_pattern.items())",
        "in by_pattern.items()",
        "test_rates.py",
    ),
    # iteration
    _mutation(
        "the trunk learns if it should not",
        "iteration.py",
        "if not options.train_trunk:",
        "if options.train_trunk:",
        "test_freezing.py::test_frozen_under_other_options",
    ),
    _mutation(
        "gradients of rows that others dropped stay",
        "iteration.py",
        "owners, owners, rows, rows)",
        "owners, owners, rows)",
        "test_freezing.py::test_a_branch_that_no_row_drops_is_frozen_too",
    ),
    _mutation(
        "dropped branches keep a gradient of before",
        "iteration.py",
        "return Iteration(actions, without_gradient=not_run)",
        "return Iteration(actions)",
        "test_freezing.py::test_frozen_under_other_options",
    ),
    _mutation(
        "kept branches are multiplied by the keep probability",
        "iteration.py",
        "1.0 / (1.0 - rate) if scale_by_keep",
        "1.0 - rate if scale_by_keep",
        "test_contracts.py::test_contracts[own_add]",
    ),
    _mutation(
        "a group norm learns from all rows",
        "iteration.py",
        "with_gradient_of_inputs(actions[index])",
        "with_gradient_of_inputs(None)",
        "test_iterations.py::test_of_a_group_norm_only_rows_that_drop_its_branch_give_gradients",
    ),
    _mutation(
        "frozen branches have a graph under stop_gradient",
        "iteration.py",
        'None if options.freeze == "parameters" else run_without_graph',
        "None",
        "test_iterations.py::test_no_graph_is_kept_below_the_first_branch_that_learns[stop_gradient-two_adds]",
    ),
    # running
    _mutation(
        "a dropped branch returns the shortcut that others read",
        "running/add_point.py",
        "return shortcut.clone() if self.copies else shortcut",
        "return shortcut",
        "test_robustness.py::test_what_is_handed_on_is_copied_only_where_it_may_be_overwritten",
    ),
    _mutation(
        "every dropped branch returns a copy",
        "running/add_point.py",
        "return shortcut.clone() if self.copies else shortcut",
        "return shortcut.clone()",
        "test_robustness.py::test_what_is_handed_on_is_copied_only_where_it_may_be_overwritten",
    ),
    _mutation(
        "a dropped branch returns the dtype of the shortcut",
        "running/add_point.py",
        "self.state.sum_dtypes.get(_dtype_key(shortcut), shortcut.dtype)",
        "shortcut.dtype",
        "test_robustness.py::test_the_add_keeps_its_dtype_under_autocast",
    ),
    _mutation(
        "the shortcut is scaled in place of the branch",
        "running/add_point.py",
        "torch.add(shortcut, branch, alpha=factor)",
        "torch.add(branch, shortcut, alpha=factor)",
        "test_last_layer.py::test_the_factor_stays_outside_where_somebody_could_tell[activation]",
    ),
    _mutation(
        "an add in place is written as a sum",
        "running/add_point.py",
        "return same and not self.overwrites_shortcut",
        "return same",
        "test_robustness.py::test_an_add_in_place_overwrites_its_shortcut_when_scaled_too",
    ),
    _mutation(
        "a branch without a graph makes one",
        "running/actions.py",
        "    with torch.no_grad():\n        branch = add_point.run(*inputs)\n    return",
        "    branch = add_point.run(*inputs)\n    return",
        "test_iterations.py::test_no_graph_is_kept_below_the_first_branch_that_learns[stop_gradient-two_adds]",
    ),
    _mutation(
        "where no row drops a branch it is not scaled",
        "running/actions.py",
        "branch = add_point.run(*inputs) * factor",
        "branch = add_point.run(*inputs)",
        "test_contracts.py::test_contracts[own_add]",
        "test_contracts.py::test_contracts[two_adds]",
        "test_contracts.py::test_contracts[timm_basic]",
    ),
    _mutation(
        "rows learn that did not drop the branch",
        "running/actions.py",
        "_per_row(learning, branch), branch, branch.detach()",
        "_per_row(learning, branch), branch.detach(), branch",
        "test_contracts.py::test_contracts[timm_basic]",
    ),
    _mutation(
        "each rank takes the first rows of the draw",
        "running/row_masks.py",
        "[branch, start : start + rows]",
        "[branch, :rows]",
        "test_row_masks.py",
    ),
    _mutation(
        "masks of one plan are used in the next",
        "running/row_masks.py",
        "        self.plan = plan\n        self._masks = {}",
        "        self.plan = plan",
        "test_row_masks.py",
    ),
    _mutation(
        "a factor goes into a layer that runs twice",
        "running/fold_scale.py",
        "for name in self.called) == 1",
        "for name in self.called) >= 1",
        "test_last_layer.py::test_the_factor_stays_outside_where_somebody_could_tell",
    ),
    _mutation(
        "a factor goes into a layer that hooks see",
        "running/fold_scale.py",
        "            and not any(is_watched(child) for child in chain)\n",
        "",
        "test_last_layer.py::test_the_factor_stays_outside_where_somebody_could_tell",
    ),
    _mutation(
        "a factor goes into a layer whose weight is read",
        "running/fold_scale.py",
        "            and all(child_at(self.block, name) is not last for name in self.read)\n",
        "",
        "test_last_layer.py::test_the_factor_stays_outside_where_somebody_could_tell",
    ),
    _mutation(
        "an activation in place overwrites the shortcut",
        "running/rewrite.py",
        "    if value is not shortcut:\n        return",
        "    if value.requires_grad:\n        return",
        "test_robustness.py::test_an_activation_after_a_dropped_branch_does_not_overwrite_the_blocks_input",
    ),
    _mutation(
        "attributes stay what they were when traced",
        "running/block_forward.py",
        "        if self.attributes.changed():  # tracing has written them into the graphs\n"
        "            self._calls.clear()\n",
        "        if False:\n",
        "test_robustness.py::test_attributes_changed_after_construction_are_honoured",
    ),
    # freezing
    _mutation(
        "flags stay off after a forward",
        "enforcement.py",
        "    def end_forward(self) -> None:\n        self.flags.restore(self._flags_off)\n",
        "    def end_forward(self) -> None:\n",
        "test_outsiders.py::test_flags_are_the_users_before_and_after_a_forward",
    ),
    _mutation(
        "flags of tensors that are no leaves are set",
        "freezing/parameter_flags.py",
        "parameter.requires_grad and parameter.is_leaf",
        "parameter.requires_grad",
        "test_freezing.py::test_parameters_that_are_computed_are_let_through",
    ),
    _mutation(
        "what is replaced in a forward stays frozen",
        "freezing/parameter_flags.py",
        "                current.requires_grad = True\n",
        "                pass\n",
        "test_freezing.py::test_parameters_replaced_while_a_forward_runs_get_the_users_flags",
    ),
    _mutation(
        "what is shared belongs to the last owner",
        "freezing/ownership.py",
        "owner_of[key] = owner if key not in shared else TRUNK",
        "owner_of[key] = owner",
        "test_shared_parameters.py::test_what_is_shared_belongs_to_no_branch",
    ),
    _mutation(
        "names that no forward uses make branches trunk",
        "freezing/ownership.py",
        "cuts | discovery.idle",
        "cuts",
        "test_shared_parameters.py::test_another_name_that_no_forward_uses_makes_nothing_shared",
    ),
    _mutation(
        "norms of rows that learn are frozen",
        "freezing/frozen_norms.py",
        "and not self.rows.any_row(owner)",
        "and self.rows.any_row(owner)",
        "test_contracts.py::test_norms_of_a_branch_that_no_row_drops_are_frozen",
    ),
    _mutation(
        "a norm stays in evaluation mode",
        "freezing/frozen_norms.py",
        "            module.training = training\n",
        "            pass\n",
        "test_freezing.py::test_norms_are_in_training_mode_after_a_forward",
    ),
    _mutation(
        "statistics of frozen norms change under batch",
        "freezing/frozen_norms.py",
        "            own_buffers(module).update(buffers)\n",
        "            pass\n",
        "test_freezing.py::test_buffers_of_frozen_norms_change_under_update_alone",
    ),
    _mutation(
        "any thread that ends a forward ends them all",
        "freezing/training_forwards.py",
        "            if self._num_begun == 0:\n                self.observer.end_forward()",
        "            self.observer.end_forward()",
        "test_outsiders.py::test_flags_in_threads_that_overlap",
    ),
    _mutation(
        "a recomputation follows the plan of its time",
        "enforcement.py",
        "            self._apply(iteration)\n            self.masks.restore(masks)\n",
        "",
        "test_outsiders.py::test_a_checkpoint_recomputes_what_its_forward_saw_whatever_the_plan_is_then",
    ),
    _mutation(
        "a recomputation learns what was frozen",
        "enforcement.py",
        "flags_off = self.flags.switch_off(iteration.frozen)",
        "flags_off = self.flags.switch_off(())",
        "test_outsiders.py::test_parameters_that_are_read_outside_of_their_module_are_frozen",
    ),
    _mutation(
        "gradients of what is frozen are zero in a step",
        "freezing/optimizer_guard.py",
        "                parameter.grad = None\n",
        "                parameter.grad.zero_()\n",
        "test_optimizer_guard.py::test_gradients_of_what_is_frozen_are_none_in_a_step_whoever_filled_them",
    ),
    _mutation(
        "values are not compared after a step",
        "freezing/optimizer_guard.py",
        "            self._check(frozen, Cause(",
        "            repr(Cause(",
        "test_optimizer_guard.py::test_an_optimizer_that_moves_what_is_frozen_is_named",
    ),
    _mutation(
        "a movement is laid on whoever steps next",
        "freezing/optimizer_guard.py",
        "            self._check(frozen, BETWEEN_STEPS)\n            if not",
        "            if not",
        "test_optimizer_guard.py::test_what_moves_between_forward_and_step_is_not_laid_on_the_optimizer",
    ),
    _mutation(
        "what the user froze may not move",
        "freezing/optimizer_guard.py",
        "for name, parameter in frozen.items() if parameter.requires_grad}",
        "for name, parameter in frozen.items()}",
        "test_optimizer_guard.py::test_parameters_that_the_user_froze_may_move",
    ),
    _mutation(
        "only the beginning of a parameter is sampled",
        "freezing/value_samples.py",
        "(count - length) * (2 * run + 1) // (2 * runs)",
        "length * run",
        "test_value_samples.py::test_large_parameters_are_sampled_all_over",
    ),
    _mutation(
        "parameters that are added go unnoticed",
        "freezing/tree_watch.py",
        "            or any(tuple(own) != seen for own, seen in self._parameters)\n",
        "",
        "test_freezing.py::test_parameters_that_are_added_follow_the_plan",
    ),
    _mutation(
        "norms are recalibrated under the plan",
        "enforcement.py",
        "self.plain if self.tree.recalibrates() else self.iteration",
        "self.iteration",
        "test_outsiders.py::test_norms_are_recalibrated_on_the_full_network",
    ),
    _mutation(
        "surplus iterations are three, not two",
        "freezing/usage_warnings.py",
        "self._iterations_since_step > 1",
        "self._iterations_since_step > 2",
        "test_usage_warnings.py::test_more_iterations_than_updates",
    ),
    # discovery
    _mutation(
        "a projection may have as many layers on its other side",
        "discovery/path_content.py",
        "branch.layers - branch.depthwise > 1",
        "branch.layers - branch.depthwise >= 1",
        "test_discovery.py::test_sides_that_are_no_shortcut_or_no_branch[TwoSidesOfOneLayer]",
    ),
    _mutation(
        "a single vector makes a branch",
        "discovery/path_content.py",
        "return branch.modules > 0",
        "return branch.parametrised > 0",
        "test_discovery.py::test_sides_that_are_no_shortcut_or_no_branch[ScalesTwice]",
    ),
    _mutation(
        "projections are taken as they come",
        "discovery/residual_rule.py",
        "projects = chains[1 - branch].layers > 0",
        "projects = chains[1 - branch].layers > 1",
        "test_discovery.py::test_sides_that_are_no_shortcut_or_no_branch[ProjectionWithActivation]",
    ),
    _mutation(
        "sums that nest are all branches",
        "discovery/nesting.py",
        "return self.branch is not None and not self.reason and not self.is_skip and is_open(self.outer)",
        "return self.branch is not None",
        "test_discovery.py::test_a_branch_inside_a_branch_is_left_to_the_outer_one",
    ),
    _mutation(
        "blocks inside a branch are branches",
        "discovery/network_walk.py",
        "place = owners.get(name, inside)",
        "place = inside",
        "test_discovery.py::test_a_branch_inside_a_branch_is_left_to_the_outer_one",
    ),
    _mutation(
        "branches are named after the layer that runs last",
        "discovery/branch_names.py",
        "if parameters])[0]",
        "if parameters])[-1]",
        "test_discovery.py::test_branches_are_named_after_their_first_layer",
    ),
    _mutation(
        "branches are in order of definition",
        "discovery/network_walk.py",
        "called = adds.children_called if adds is not None else ()",
        "called = ()",
        "test_discovery.py::test_blocks_defined_last_but_run_first_come_first",
    ),
    _mutation(
        "a branch overwrites its shortcut",
        "discovery/branch_subgraph.py",
        "member.all_input_nodes[0] in inputs and is_inplace(member, module)",
        "member.all_input_nodes[0] in inputs and False",
        "test_discovery.py::test_what_is_left_aside_is_told_with_its_reason",
    ),
    _mutation(
        "a branch reads what was overwritten",
        "discovery/branch_subgraph.py",
        "            if is_inplace(other, module):",
        "            if other is node:",
        "test_discovery.py::test_what_is_left_aside_is_told_with_its_reason",
    ),
    # graph
    _mutation(
        "guards hold whatever comes",
        "graph/shape_guards.py",
        "if READINGS[reading](value) != expected:",
        "if False:",
        "test_own_networks.py::test_conditions_follow_each_call",
    ),
    _mutation(
        "an attempt under failed guards counts in statistics",
        "running/traced_calls.py",
        "                buffer.copy_(before)\n",
        "                pass\n",
        "test_own_networks.py::test_an_attempt_under_other_conditions_leaves_statistics_alone",
    ),
    _mutation(
        "flags given to a forward are those of the first call",
        "graph/call_form.py",
        "return self.values, tuple((name, repr(value)) for name, value in self.constants.items())",
        "return self.values, ()",
        "test_calls.py::test_a_flag_that_decides",
    ),
    _mutation(
        "`+=` does not overwrite",
        "graph/node_kinds.py",
        "INPLACE_OPERATORS = (operator.iadd, operator.isub,",
        "INPLACE_OPERATORS = (operator.isub,",
        "test_discovery.py::test_an_add_in_place_must_not_overwrite_what_a_later_branch_has_read",
    ),
    _mutation(
        "the factor of an add is lost",
        "graph/tracer.py",
        'given["other"] = self.create_node("call_function", operator.mul, (given["other"], alpha), {})\n',
        "pass\n",
        "test_own_networks.py::test_contracts[alpha]",
    ),
    _mutation(
        "attributes are no part of a kind",
        "graph/module_kinds.py",
        "                yield name, None if name in places else _kind_of(value, module)\n",
        "                yield name\n",
        "test_alike_modules.py::test_a_flag_makes_another_kind",
    ),
    _mutation(
        "a forward that decides by its place is shared",
        "graph/tracer.py",
        "            self.kinds.place_was_read = True\n",
        "            pass\n",
        "test_alike_modules.py::test_a_forward_that_decides_by_its_place",
    ),
    _mutation(
        "places in lists are constants of a graph",
        "graph/module_copies.py",
        "            own[name] = self.number_at(_join(path, name), number)\n",
        "            pass\n",
        "test_alike_modules.py::test_a_place_is_looked_up",
    ),
    _mutation(
        "what hangs in a block twice makes no kind of its own",
        "graph/module_kinds.py",
        "if len(all_parts) < len(parts) + sum(map(len, below)):",
        "if False:",
        "test_alike_modules.py::test_a_child_that_hangs_twice",
    ),
    # options and resuming
    _mutation(
        "a rate of 1 is allowed",
        "options.py",
        "not isinstance(rate, Real) or not 0 <= float(rate) < 1):",
        "not isinstance(rate, Real) or not 0 <= float(rate) <= 1):",
        "test_options.py::test_options_are_checked_before_a_model_is_known",
    ),
    _mutation(
        "training may become shorter on resume",
        "options.py",
        "None not in (value, before) and value >= before",
        "None not in (value, before)",
        "test_resume.py",
    ),
    _mutation(
        "options that an older state lacks are taken as they are",
        "options.py",
        "before = saved.get(name, defaults[name])",
        "before = saved.get(name, value)",
        "test_resume.py",
    ),
    _mutation(
        "resuming begins the cycle anew",
        "residual_drop_path.py",
        "self._begins = begins\n        self._go_to(iteration)",
        "self._begins = begins\n        self._go_to(iteration - iteration % 2)",
        "test_resume.py::test_resumed_equals_uninterrupted",
    ),
    _mutation(
        "gradients stay where a plan is loaded",
        "enforcement.py",
        "self.iteration.without_gradient if stepping else frozenset()",
        "self.iteration.without_gradient | iteration.without_gradient",
        "test_resume.py::test_gradients_of_what_the_loaded_plan_freezes_are_cleared",
    ),
    # the class
    _mutation(
        "a cycle is two iterations",
        "residual_drop_path.py",
        "return self.iteration == self._begins.iteration",
        "return self.iteration % 2 == 0",
        "test_plan.py::test_cycle_runs_one_whole_cycle",
    ),
    _mutation(
        "refresh looks at flags alone",
        "residual_drop_path.py",
        '        self._require_active("refresh")\n        self._enforcement.look_again()\n',
        '        self._require_active("refresh")\n',
        "test_freezing.py::test_refresh_takes_notice_of_replaced_modules",
        "test_freezing.py::test_refresh_takes_notice_of_flags_changed_in_paused",
    ),
    _mutation(
        "remove leaves forwards behind",
        "enforcement.py",
        "[*reversed(self.watched), *reversed(self.norms.installed), *reversed(self.blocks)]",
        "[*reversed(self.norms.installed), *reversed(self.blocks)]",
        "test_plain_model.py::test_remove_leaves_the_model_as_it_was",
    ),
    _mutation(
        "a copy begins at iteration 0",
        "residual_drop_path.py",
        "    rdp._go_to(iteration)\n",
        "    rdp._go_to(0)\n",
        "test_outsiders.py::test_copies_of_both_are_a_working_pair",
    ),
    _mutation(
        "a gradient made in a pause stays",
        "enforcement.py",
        "            self.flags.clear_gradients(self.iteration.without_gradient)\n\n",
        "            pass\n\n",
        "test_freezing.py::test_paused_is_the_plain_model_with_the_users_flags",
    ),
    _mutation(
        "what the user froze is dropped",
        "branch.py",
        "rate if has_something else 0.0 for rate",
        "rate for rate",
        "test_user_frozen_branches.py",
    ),
    _mutation(
        "what the user freezes counts after a refresh alone",
        "residual_drop_path.py",
        "if self._enforcement.learns() != self._learns:",
        "if False:",
        "test_outsiders.py::test_what_the_user_freezes_in_mid_cycle_counts_from_the_next_forward",
        "test_user_frozen_branches.py",
    ),
    # the model's own drop path, and what is shown
    _mutation(
        "the model's own drop path acts too",
        "enforcement.py",
        "self._own_rates = switch_off(self.own_drop_path)",
        "self._own_rates = []",
        "test_own_drop_path.py::test_under_ours_it_is_off_while_a_forward_runs",
    ),
    _mutation(
        "rates of drop paths in a row are summed",
        "discovery/own_rates.py",
        "first + second - first * second",
        "first + second",
        "test_own_rates.py::test_rates_of_one_block",
    ),
    _mutation(
        "layerdrop does not count",
        "discovery/own_rates.py",
        "*(rate for rate, layers in stacks if _lies_in(layers, branch)),",
        "",
        "test_own_rates.py::test_layerdrop_is_combined_into_every_branch_of_its_layers",
    ),
    _mutation(
        "kept branches are marked as dropped",
        "describe.py",
        "if branch.name in plan.dropped",
        "if branch.name in plan.kept",
        "test_discovery.py::test_repr_marks_what_is_dropped",
    ),
)
