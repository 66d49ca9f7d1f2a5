"""Which draws a cycle trains (`trains`), and what becomes of draws that drop nothing (`empty_draw`)."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from residualdroppath import Plan, ResidualDropPath
from residualdroppath.core.planning.cycles import FIRST, Beginning, cycle_at
from residualdroppath.core.planning.draws import draw_dropped, effective_rates
from residualdroppath.core.planning.plan import make_plan
from residualdroppath.core.planning.plan_options import PlanOptions

from .stepping import assert_equal, buffers_of, forward_backward
from .tiny_models import TRUNK, TinyModel, some_models

SIX = PlanOptions(names=tuple("abcdef"), drop_rates=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5), seed=5)
SPARSE = replace(SIX, drop_rates=(0.0, 0.05, 0.05, 0.1, 0.1, 0.2), empty_draw="plain")
SCHEDULES: list[Any] = [(1, 1), (3, 1), (2, 2), "random"]
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
granularities = pytest.mark.parametrize("granularity", ["batch", "sample"])


def plans_of(options: PlanOptions, num: int = 120) -> list[Plan]:
    known, plans = FIRST, []
    for iteration in range(num):
        known = cycle_at(options, iteration, known).begins  # else each plan goes through all cycles before it
        plans.append(make_plan(options, iteration, known))
    return plans


def cycles_of(plans: list[Plan]) -> list[tuple[list[Plan], list[Plan]]]:
    """By cycle, the `drop_path` and the `dropped_part` iterations; where no draw was empty."""
    cycles: list[tuple[list[Plan], list[Plan]]] = [([], [])]
    for plan in plans:
        if plan.kind == "drop_path" and cycles[-1][1]:
            cycles.append(([], []))
        cycles[-1][plan.kind == "dropped_part"].append(plan)
    return cycles


# --- what is trained


@pytest.mark.parametrize("draw", ["independent", "balanced"])
@granularities
@schedules
def test_the_draws_are_the_same_whatever_is_trained(schedule: Any, granularity: Any, draw: Any) -> None:
    options = replace(SIX, schedule=schedule, granularity=granularity, draw=draw)
    plans = {trains: plans_of(replace(options, trains=trains), 60) for trains in ("last", "union", "unrelated", "all")}
    for last, *others in zip(*plans.values(), strict=True):
        assert all(other.kind == last.kind for other in others)
        if last.kind == "drop_path":
            assert others == [last] * 3


@granularities
@schedules
def test_union_is_what_any_draw_of_the_cycle_dropped(schedule: Any, granularity: Any) -> None:
    plans = plans_of(replace(SIX, schedule=schedule, granularity=granularity, trains="union"))
    num_more = 0
    for drop_path, dropped_part in cycles_of(plans):
        union = torch.stack([plan.mask(7) for plan in drop_path]).any(dim=0) if granularity == "sample" else None
        for plan in dropped_part:
            assert set(plan.dropped) == {name for each in drop_path for name in each.dropped}
            if union is not None:
                assert torch.equal(plan.mask(7), union)
                num_more += not torch.equal(union, drop_path[-1].mask(7))
            else:
                num_more += plan.dropped != drop_path[-1].dropped
            assert plan.drop_rates == drop_path[-1].drop_rates and plan.decided_at == drop_path[-1].iteration
    assert (num_more > 10) == (schedule != (1, 1))


@pytest.mark.parametrize("draw", ["independent", "balanced"])
def test_unrelated_is_of_the_same_distribution_and_not_what_was_dropped(draw: Any) -> None:
    options = replace(SIX, drop_rates=(0.0, 0.2, 0.2, 0.2, 0.2, 0.4), trains="unrelated", draw=draw)
    plans = plans_of(options, 6000)
    dropped, trained = (torch.tensor([plan.is_dropped for plan in plans[start::2]]).double() for start in (0, 1))
    assert trained.any(dim=1).all()
    rates = torch.tensor(plans[0].drop_rates, dtype=torch.float64)
    for found in (dropped, trained):
        assert ((found.mean(dim=0) - rates).abs() <= 4 * (rates * (1 - rates) / 3000).sqrt()).all()
    both = (dropped * trained).mean(dim=0)  # independent of each other
    assert ((both - rates**2).abs() <= 4 * (rates**2 * (1 - rates**2) / 3000).sqrt()).all()


def test_unrelated_rows_are_never_empty() -> None:
    plan = make_plan(replace(SPARSE, empty_draw="redraw", granularity="sample", trains="unrelated"), 1)
    assert plan.mask(300).any(dim=0).all()
    assert not torch.equal(
        plan.mask(300), make_plan(replace(SPARSE, empty_draw="redraw", granularity="sample"), 1).mask(300)
    )


@granularities
def test_all_is_everything(granularity: Any) -> None:
    plan = make_plan(replace(SIX, trains="all", granularity=granularity), 1)
    assert (plan.kind, plan.dropped, plan.kept) == ("dropped_part", SIX.names, ())
    assert plan.mask(3).all()


@some_models("timm_basic", "two_adds")
@pytest.mark.parametrize("freeze", ["parameters", "stop_gradient"])
def test_an_iteration_that_trains_all_is_plain_training(tiny: TinyModel, freeze: Any) -> None:
    model, plain = tiny.build(), tiny.build()
    rdp = ResidualDropPath(model, 0.5, trains="all", freeze=freeze)
    rdp.step()
    assert rdp.kind == "dropped_part"
    trace, full = forward_backward(model, tiny.inputs()), forward_backward(plain, tiny.inputs())
    assert_equal(trace.output, full.output, "output")
    assert_equal(trace.gradients, full.gradients, "gradients")
    assert_equal(buffers_of(model), buffers_of(plain), "buffers")


@some_models("own_add", "two_adds")
def test_union_trains_what_earlier_draws_dropped(tiny: TinyModel) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.4, schedule=(4, 1), trains="union", rate_over_depth="uniform", seed=3)
    draws = [set(make_plan(rdp._plan_options, iteration).dropped) for iteration in range(4)]
    dropped, last = set().union(*draws), draws[-1]
    for _ in range(4):
        rdp.step()
    assert rdp.kind == "dropped_part" and last < dropped
    gradients = forward_backward(model, tiny.inputs()).gradients
    owners = tiny.owners(model)
    assert {owners[name] for name, gradient in gradients.items() if gradient is not None} == dropped
    assert TRUNK not in dropped and "branches learn" in repr(rdp)


# --- draws that drop nothing


def by_hand(options: PlanOptions, num: int) -> list[tuple[str, set[str]]]:
    """Kinds and dropped branches under `empty_draw="plain"`, going through iterations one by one."""
    assert options.schedule != "random"
    a, b = options.schedule
    found: list[tuple[str, set[str]]] = []
    while len(found) < num:
        draws = []
        for _ in range(a):
            drawn = draw_dropped(options.drop_rates, seed=options.seed, iteration=len(found))[0].tolist()
            draws.append({name for name, dropped in zip(options.names, drawn, strict=True) if dropped})
            found.append(("drop_path", draws[-1]))
        trained = set().union(*draws) if options.trains == "union" else draws[-1]
        if trained:
            found += [("dropped_part", trained)] * b
        elif b:
            found[-1] = ("plain", set())
    return found[:num]


@pytest.mark.parametrize("trains", ["last", "union"])
@pytest.mark.parametrize("schedule", [(1, 1), (3, 1), (1, 3), (2, 0)], ids=str)
def test_an_empty_draw_is_a_plain_iteration_and_the_next_one_draws_again(schedule: Any, trains: Any) -> None:
    options = replace(SPARSE, schedule=schedule, trains=trains)
    expected = by_hand(options, 200)
    for plan, (kind, dropped) in zip(plans_of(options, 200), expected, strict=True):
        assert set(plan.dropped) == dropped
        assert plan.kind == ("dropped_part" if kind == "dropped_part" else "drop_path")
        assert plan.drop_rates == (SPARSE.drop_rates if kind != "plain" else (0.0,) * 6)  # plain: nothing scaled
        assert not plan.nonempty
    num_plain = sum(kind == "plain" for kind, _ in expected)
    assert (num_plain > 5) == (schedule != (2, 0))


def test_an_empty_draw_of_a_random_schedule() -> None:
    options = replace(SPARSE, schedule="random")
    plans = plans_of(options, 400)
    num_plain = 0
    for before, plan in zip(plans, plans[1:], strict=False):
        if before.kind == "drop_path" and not any(before.drop_rates):
            num_plain += 1
            assert plan.kind == "drop_path"
        if plan.kind == "dropped_part":
            assert plan.dropped and plan.dropped == before.dropped
    assert num_plain > 20 and sum(plan.kind == "dropped_part" for plan in plans) > 80


@pytest.mark.parametrize("draw", ["independent", "balanced"])
@schedules
def test_plans_are_a_pure_function_of_the_iteration(schedule: Any, draw: Any) -> None:
    """In any order, and from wherever a cycle is known to begin."""
    options = replace(SPARSE, schedule=schedule, draw=draw)
    plans = plans_of(options, 150)
    assert len({plan.kind for plan in plans}) == 2
    for iteration in reversed(range(150)):
        assert make_plan(options, iteration) == plans[iteration]
    known = FIRST
    for iteration in range(150):
        known = cycle_at(options, iteration, known).begins
        assert known == cycle_at(options, iteration).begins
        for later in (iteration, iteration + 1, iteration + 17, iteration // 2):
            assert make_plan(options, later, known) == make_plan(options, later)


@pytest.mark.parametrize("draw", ["independent", "balanced"])
def test_rates_are_nominal_over_all_draws(draw: Any) -> None:
    """The plain iterations count as draws that dropped nothing."""
    options = replace(SPARSE, draw=draw)
    draws = [plan for plan in plans_of(options, 12000) if plan.kind == "drop_path"]
    found = torch.tensor([plan.is_dropped for plan in draws]).double().mean(dim=0)
    rates = torch.tensor(options.drop_rates, dtype=torch.float64)
    assert ((found - rates).abs() <= 4 * (rates * (1 - rates) / len(draws)).sqrt()).all()
    redrawn = effective_rates(options.drop_rates)
    assert max(redrawn) > 2 * max(options.drop_rates)


def test_rates_of_zero_are_plain_for_as_long_as_they_last() -> None:
    options = replace(SPARSE, drop_rates=(0.9,) * 6, rate_over_time=lambda p: float(p > 0.25), total_iterations=12)
    assert "".join(plan.kind[-1] if plan.dropped else "." for plan in plans_of(options, 10)) == "....hththt"


def test_a_cycle_whose_last_draw_has_no_rates_ends_with_it() -> None:
    """Its iterations are plain, whatever an earlier draw has dropped: the next one draws again."""
    options = replace(SIX, drop_rates=(0.9,) * 6, schedule=(2, 1), trains="union", empty_draw="plain")
    options = replace(options, rate_over_time=lambda p: float(p != 0.1), total_iterations=10)
    assert cycle_at(options, 0).is_empty and make_plan(options, 0).dropped and not make_plan(options, 1).dropped
    assert [plan.kind for plan in plans_of(options, 5)[2:]] == ["drop_path", "drop_path", "dropped_part"]


# --- the object


@some_models("own_add")
def test_rates_shown_and_used_are_nominal(tiny: TinyModel) -> None:
    rdp = ResidualDropPath(tiny.build(), 0.1, empty_draw="plain")
    assert [branch.effective_rate for branch in rdp.branches] == [branch.drop_rate for branch in rdp.branches]
    assert "empty_draw='plain'" in repr(rdp) and "trains='last'" in repr(rdp) and "draw='independent'" in repr(rdp)
    balanced = ResidualDropPath(tiny.build(), 0.1, draw="balanced")
    assert [branch.effective_rate for branch in balanced.branches] == pytest.approx([0, 1 / 3, 2 / 3])


@some_models("own_add")
@pytest.mark.parametrize("schedule", [(2, 1), "random"], ids=str)
def test_cycle_ends_with_a_plain_iteration(tiny: TinyModel, schedule: Any) -> None:
    rdp = ResidualDropPath(tiny.build(), 0.2, schedule=schedule, empty_draw="plain", seed=1)
    lengths = set()
    for _ in range(40):
        first, *others = list(rdp.cycle())
        assert first.kind == "drop_path"
        lengths.add((first.iteration >= 0, len(others)))
        if schedule == (2, 1):
            assert [plan.kind for plan in others] in (["drop_path"], ["drop_path", "dropped_part"])
            assert (len(others) == 1) == (not any(others[0].drop_rates))
    assert len(lengths) > 1


@some_models("own_add")
@pytest.mark.parametrize(
    "options",
    [
        {"schedule": (2, 2), "empty_draw": "plain"},
        {"schedule": "random", "empty_draw": "plain", "draw": "balanced", "trains": "union"},
        {"schedule": "random", "draw": "balanced", "trains": "unrelated"},
    ],
    ids=str,
)
def test_resumed_anywhere_plans_are_those_of_an_uninterrupted_training(tiny: TinyModel, options: Any) -> None:
    whole = ResidualDropPath(tiny.build(), 0.2, **options)
    states, plans = [], []
    for _ in range(60):
        states.append(whole.state_dict())
        plans.append(whole.plan)
        whole.step()
    beginnings = {state["cycle"]["iteration"] for state in states}
    assert len(beginnings) > 10 and any(state["cycle"]["iteration"] < state["iteration"] for state in states)
    other = ResidualDropPath(tiny.build(), 0.2, **options)
    for start in (37, 3, 22, 23, 24, 25, 0):
        other.load_state_dict(states[start])
        for iteration in range(start, min(start + 12, 60)):
            assert other.plan == plans[iteration] == make_plan(other._plan_options, iteration)
            assert other.state_dict() == states[iteration]
            other.step()


@some_models("own_add")
@pytest.mark.parametrize(
    "cycle",
    [3, {}, *({"iteration": i, "num_draws": n} for i, n in ((9, 0), (1, 2), (-1, -1), (True, 0), (0, None)))],
    ids=str,
)
def test_a_cycle_that_makes_no_sense_is_refused(tiny: TinyModel, cycle: Any) -> None:
    rdp = ResidualDropPath(tiny.build(), 0.5)
    state = {**rdp.state_dict(), "iteration": 2, "cycle": cycle}
    with pytest.raises(ValueError, match=r"`state\['cycle'\]` must be .*, got .*; load a state as"):
        rdp.load_state_dict(state)


@some_models("own_add")
def test_states_of_before_had_no_cycles_and_the_defaults(tiny: TinyModel) -> None:
    rdp = ResidualDropPath(tiny.build(), 0.5, schedule="random")
    for _ in range(7):
        rdp.step()
    state = rdp.state_dict()
    assert state["cycle"] == asdict(
        Beginning(cycle_at(rdp._plan_options, 7).begins.iteration, state["cycle"]["num_draws"])
    )
    new = ("trains", "draw", "empty_draw")
    options = {name: value for name, value in state["options"].items() if name not in new}
    before = {name: value for name, value in state.items() if name != "cycle"} | {"format": 2, "options": options}
    other = ResidualDropPath(tiny.build(), 0.5, schedule="random")
    other.load_state_dict(before)
    assert other.plan == rdp.plan and other.state_dict() == state
    with pytest.raises(ValueError, match=r"lacks \['cycle'\]"):
        other.load_state_dict({**before, "format": 3})
    changes: list[dict[str, Any]] = [{"trains": "union"}, {"draw": "balanced"}, {"empty_draw": "plain"}]
    for change in changes:
        ((name, value),) = change.items()
        with pytest.raises(ValueError, match=f"saved with {name}=.*, this one has '{value}'"):
            ResidualDropPath(tiny.build(), 0.5, schedule="random", **change).load_state_dict(before)
