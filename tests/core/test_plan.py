"""Contract 7: the plan is a pure function of (seed, iteration); schedules and rates over depth and time."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from residualdroppath import Plan, ResidualDropPath
from residualdroppath.core.planning.plan import PlanOptions, make_plan, rates_over_depth

from .stepping import assert_close, forward_backward, gradients_of
from .tiny_models import BY_NAME, TinyModel, some_models

SIX = PlanOptions(names=tuple("abcdef"), drop_rates=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5), seed=5)
NAMES = {"drop_path": "d", "dropped_part": "p"}


def kinds(options: PlanOptions, num: int = 12) -> str:
    return "".join(NAMES[make_plan(options, iteration).kind] for iteration in range(num))


def plans(rdp: ResidualDropPath, num: int) -> list[Plan]:
    found = []
    for _ in range(num):
        found.append(rdp.plan)
        rdp.step()
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"freeze": "stop_gradient", "granularity": "sample"},
        {"schedule": "random"},
        {"schedule": (2, 3)},
        {"schedule": "random", "trains": "union", "draw": "balanced", "empty_draw": "plain"},
        {"freeze": "stop_gradient", "granularity": "sample", "trains": "unrelated", "draw": "balanced"},
    ],
    ids=str,
)
def test_two_objects_make_the_same_plans(options: dict[str, Any]) -> None:
    tiny = BY_NAME["two_adds"]
    first, second = (ResidualDropPath(tiny.build(), 0.5, seed=7, **options) for _ in range(2))
    assert plans(first, 10) == plans(second, 10)
    again, other = (ResidualDropPath(tiny.build(), 0.5, seed=seed, **options) for seed in (7, 8))
    masks = [[plan.mask(8).tolist() for plan in plans(rdp, 10)] for rdp in (again, other)]
    assert masks[0] == [make_plan(first._plan_options, iteration).mask(8).tolist() for iteration in range(10)]
    assert masks[0] != masks[1]


def test_plans_do_not_depend_on_those_made_before() -> None:
    forwards = [make_plan(SIX, iteration) for iteration in range(20)]
    assert [make_plan(SIX, iteration) for iteration in reversed(range(20))] == forwards[::-1]
    assert len({plan.dropped for plan in forwards}) > 5


def test_plans_are_the_same_across_releases_and_platforms() -> None:
    """What an experiment has drawn it draws again: change these only together with a note of changes."""
    found = ["".join(make_plan(SIX, iteration).dropped) for iteration in range(0, 12, 2)]
    assert found == ["bf", "f", "de", "c", "e", "def"]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [((1, 1), "dpdpdpdpdpdp"), ((2, 1), "ddpddpddpddp"), ((1, 2), "dppdppdppdpp"), ((1, 0), "dddddddddddd")],
)
def test_schedule(schedule: tuple[int, int], expected: str) -> None:
    assert kinds(replace(SIX, schedule=schedule)) == expected


def test_random_schedule_takes_each_kind_about_half_the_time_and_starts_with_drop_path() -> None:
    for seed in range(20):
        assert make_plan(replace(SIX, schedule="random", seed=seed), 0).kind == "drop_path"
    num = kinds(replace(SIX, schedule="random"), 400).count("d")
    assert 160 < num < 240  # four standard deviations


@pytest.mark.parametrize("schedule", [(1, 1), (2, 1), (3, 2), "random"], ids=str)
def test_dropped_part_trains_what_the_last_drop_path_iteration_dropped(schedule: Any) -> None:
    options = replace(SIX, schedule=schedule)
    last: Plan | None = None
    num_dropped_part = 0
    for iteration in range(40):
        plan = make_plan(options, iteration)
        assert plan.iteration == iteration
        assert sorted([*plan.dropped, *plan.kept]) == sorted(options.names)
        if plan.kind == "drop_path":
            assert plan.decided_at == iteration
            last = plan
        else:
            assert last is not None
            assert (plan.dropped, plan.decided_at, plan.drop_rates) == (last.dropped, last.iteration, last.drop_rates)
            assert plan.dropped
            num_dropped_part += 1
    assert num_dropped_part > 5


def test_only_deciding_draws_use_effective_rates() -> None:
    plan = [make_plan(replace(SIX, schedule=(2, 1)), iteration) for iteration in range(3)]
    none_dropped = 0.9 * 0.8 * 0.7 * 0.6 * 0.5
    assert plan[0].drop_rates == SIX.drop_rates and not plan[0].nonempty
    for deciding in plan[1:]:
        assert deciding.drop_rates == pytest.approx([rate / (1 - none_dropped) for rate in SIX.drop_rates], abs=1e-12)


def test_drop_path_alone_draws_what_the_method_draws_first() -> None:
    alone, method = replace(SIX, schedule=(1, 0)), SIX
    num_redrawn = 0
    for iteration in range(0, 200, 2):
        baseline, plan = make_plan(alone, iteration), make_plan(method, iteration)
        assert baseline.drop_rates == SIX.drop_rates
        if baseline.dropped:
            assert baseline.dropped == plan.dropped
        else:
            num_redrawn += 1
            assert plan.dropped
    assert num_redrawn > 5  # about 15 % are


@pytest.mark.parametrize("schedule", [(1, 1), (2, 1), "random"], ids=str)
@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_without_rates_every_iteration_is_plain(schedule: Any, granularity: Any) -> None:
    options = replace(SIX, drop_rates=(0.0,) * 6, schedule=schedule, granularity=granularity)
    for iteration in range(6):
        plan = make_plan(options, iteration)
        assert (plan.kind, plan.dropped, plan.kept, plan.nonempty) == ("drop_path", (), tuple("abcdef"), False)
        assert plan.drop_rates == (0.0,) * 6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("warmup", [0, 0.5, 1, 1, 1]),
        ("early", [1, 1, 1, 0, 0]),
        ("late", [0, 0, 0, 1, 1]),
        ("decay", [1, 0.9375, 0.6875, 0.0625, 0]),
        (lambda progress: progress**2, [0, 0.0025, 0.0625, 0.5625, 1]),
    ],
)
def test_rate_over_time(name: Any, expected: list[float]) -> None:
    tiny = BY_NAME["own_add"]
    rdp = ResidualDropPath(tiny.build(), 0.4, rate_over_time=name, total_iterations=200, schedule=(1, 0))
    found = [make_plan(rdp._plan_options, iteration).drop_rates[-1] for iteration in (0, 10, 50, 150, 200)]
    assert found == pytest.approx([0.4 * factor for factor in expected])
    assert make_plan(rdp._plan_options, 300).drop_rates == make_plan(rdp._plan_options, 200).drop_rates


def test_the_phase_without_rates_is_plain_training() -> None:
    tiny = BY_NAME["own_add"]
    rdp = ResidualDropPath(tiny.build(), 0.5, rate_over_time="early", total_iterations=8)
    found = plans(rdp, 8)
    assert "".join(NAMES[plan.kind] for plan in found) == "dpdpdddd"
    assert all(plan.dropped for plan in found[:4]) and not any(plan.dropped for plan in found[4:])


def test_dropped_part_belongs_to_the_draw_even_where_its_own_rate_would_be_zero() -> None:
    """The cycle straddles the end of the early phase: what was dropped is still trained."""
    options = replace(SIX, rate_over_time=lambda p: 1.0 if p < 0.4 else 0.0, total_iterations=8)
    assert kinds(options, 8) == "dpdpdddd"
    assert make_plan(options, 3).dropped == make_plan(options, 2).dropped != ()
    straddling = replace(options, rate_over_time=lambda p: 1.0 if p < 0.3 else 0.0)
    assert kinds(straddling, 8) == "dpdpdddd"
    assert make_plan(straddling, 3).decided_at == 2


@pytest.mark.parametrize("factor", [1.5, -0.1, float("nan")])
def test_a_factor_out_of_range_is_an_error(factor: float) -> None:
    options = replace(SIX, rate_over_time=lambda _: factor, total_iterations=10)
    with pytest.raises(ValueError, match=rf"`rate_over_time` must return a factor in \[0, 1\], got {factor!r} at it"):
        make_plan(options, 0)


def test_rates_over_depth() -> None:
    assert rates_over_depth([0, 1, 2], 0.3, "linear") == pytest.approx([0, 0.15, 0.3])  # timm's linspace
    assert rates_over_depth([0, 0, 1, 1, 2, 2], 0.3, "linear") == pytest.approx([0, 0, 0.15, 0.15, 0.3, 0.3])
    assert rates_over_depth([0, 0], 0.3, "linear") == (0.3, 0.3)  # one block alone
    assert rates_over_depth([0, 1, 1], 0.3, "uniform") == (0.3, 0.3, 0.3)


def test_rates_of_a_model_are_per_block() -> None:
    rdp = ResidualDropPath(BY_NAME["two_adds"].build(), 0.3)
    assert [branch.drop_rate for branch in rdp.branches] == pytest.approx([0, 0, 0.15, 0.15, 0.3, 0.3])
    alone = ResidualDropPath(BY_NAME["two_adds"].build(), 0.3, schedule=(1, 0))
    assert [branch.effective_rate for branch in alone.branches] == [branch.drop_rate for branch in alone.branches]
    none_dropped = 0.85**2 * 0.7**2
    assert [b.effective_rate for b in rdp.branches] == pytest.approx(
        [b.drop_rate / (1 - none_dropped) for b in rdp.branches]
    )


@pytest.mark.parametrize(("schedule", "num"), [((1, 1), 2), ((2, 1), 3), ((1, 2), 3), ((1, 0), 1), ((3, 2), 5)])
@some_models("own_add")
def test_cycle_runs_one_whole_cycle(tiny: TinyModel, schedule: tuple[int, int], num: int) -> None:
    rdp = ResidualDropPath(tiny.build(), 0.5, schedule=schedule)
    for repeat in range(3):
        found = list(rdp.cycle())
        assert [plan.iteration for plan in found] == list(range(repeat * num, (repeat + 1) * num))
        assert [plan.kind for plan in found] == ["drop_path"] * schedule[0] + ["dropped_part"] * schedule[1]
    assert rdp.iteration == 3 * num


@some_models("own_add")
def test_cycle_begun_in_the_middle_ends_with_the_cycle(tiny: TinyModel) -> None:
    rdp = ResidualDropPath(tiny.build(), 0.5, schedule=(2, 2))
    rdp.step()
    assert [plan.iteration for plan in rdp.cycle()] == [1, 2, 3]


@some_models("own_add")
def test_cycle_of_a_random_schedule_ends_before_the_next_drop_path_iteration(tiny: TinyModel) -> None:
    rdp = ResidualDropPath(tiny.build(), 0.5, schedule="random")
    for _ in range(10):
        first, *others = rdp.cycle()
        assert first.kind == "drop_path" and all(plan.kind == "dropped_part" for plan in others)


@some_models("two_adds")
def test_the_plan_is_in_force_for_what_runs_inside_cycle(tiny: TinyModel) -> None:
    rdp = ResidualDropPath(tiny.build(), 0.5)
    for plan in islice(rdp.cycle(), 2):
        assert (rdp.plan, rdp.kind, rdp.iteration) == (plan, plan.kind, plan.iteration)


@some_models("two_adds", "layer_scale")
@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_the_plan_is_held_across_the_batches_of_an_accumulated_iteration(tiny: TinyModel, granularity: Any) -> None:
    model, other = tiny.build(), tiny.build()
    rdps = [ResidualDropPath(m, 0.5, freeze="stop_gradient", granularity=granularity) for m in (model, other)]
    batches = [tiny.inputs(seed=seed) for seed in range(2)]
    for _ in range(2):
        for batch in batches:
            forward_backward(model, batch)
        separate = []
        for batch in batches:
            other.zero_grad()
            separate.append(forward_backward(other, batch).gradients)
        for name, gradient in gradients_of(model).items():
            parts = [part[name] for part in separate]
            assert all((part is None) == (gradient is None) for part in parts)
            if gradient is not None:
                assert_close(gradient, sum(part for part in parts if part is not None), name)  # pyright: ignore
        for m, rdp in zip((model, other), rdps, strict=True):
            m.zero_grad()
            rdp.step()
