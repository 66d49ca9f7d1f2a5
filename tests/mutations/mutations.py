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
        "test_draws.py",
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
        "decided_at = deciding_iteration(options, iteration)",
        "decided_at = iteration",
        "test_plan.py::test_dropped_part_trains_what_the_last_drop_path_iteration_dropped",
    ),
    _mutation(
        "every draw is with effective rates",
        "planning/plan.py",
        'any(nominal) and scheduled_kind(options, decided_at + 1) == "dropped_part"',
        "any(nominal)",
        "test_plan.py::test_only_deciding_draws_use_effective_rates",
    ),
    _mutation(
        "rates over time are those of the iteration itself",
        "planning/plan.py",
        "nominal = rates_at(options, decided_at)",
        "nominal = rates_at(options, iteration)",
        "test_plan.py::test_dropped_part_belongs_to_the_draw_even_where_its_own_rate_would_be_zero",
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
        "frozenset(frozen), rows, rows)",
        "frozenset(frozen), rows)",
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
        "a group norm ends row by row learning",
        "iteration.py",
        "with_gradient_of_inputs(actions[index])",
        "with_gradient_of_inputs(None)",
        "test_contracts.py::test_contracts",
    ),
    _mutation(
        "frozen branches have a graph under stop_gradient",
        "iteration.py",
        'None if options.freeze == "parameters" else run_without_graph',
        "None",
        "test_iterations.py::test_no_graph_is_kept_below_the_first_branch_that_learns",
    ),
)
