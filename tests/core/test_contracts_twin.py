"""Contracts 3 and 4: what runs fast equals the readable twin, for every model and every option."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import fx, nn

from residualdroppath import ResidualDropPath
from residualdroppath.core import reference
from residualdroppath.core.discovery.block_branches import trace_block
from residualdroppath.core.graph.call_form import CallForm
from residualdroppath.core.graph.shape_guards import GuardOutcomes

from .stepping import assert_close, assert_equal, buffers_of, forward_backward, sgd_step
from .tiny_models import BY_NAME, HAND_WRITTEN, TRUNK, TinyModel, every_model, some_models

Options = dict[str, Any]

# Each option of DESIGN.md section 2 away from its default, alone and with those it interacts with.
OPTIONS: dict[str, Options] = {
    "parameters": {},
    "stop_gradient": {"freeze": "stop_gradient"},
    "sample": {"freeze": "stop_gradient", "granularity": "sample"},
    "norm_batch": {"frozen_norm": "batch"},
    "norm_running": {"frozen_norm": "running"},
    "stop_gradient_norm_batch": {"freeze": "stop_gradient", "frozen_norm": "batch"},
    "stop_gradient_norm_running": {"freeze": "stop_gradient", "frozen_norm": "running"},
    "sample_norm_batch": {"freeze": "stop_gradient", "granularity": "sample", "frozen_norm": "batch"},
    "sample_norm_running": {"freeze": "stop_gradient", "granularity": "sample", "frozen_norm": "running"},
    "train_trunk": {"train_trunk": True, "frozen_norm": "batch"},
    "stop_gradient_train_trunk": {"freeze": "stop_gradient", "train_trunk": True},
    "sample_train_trunk": {"freeze": "stop_gradient", "granularity": "sample", "train_trunk": True},
}
# These change plans, not what is done by a plan: hand-written models are enough, and quick.
PLAN_OPTIONS: dict[str, Options] = {
    "no_scale": {"scale_by_keep": False},
    "sample_no_scale": {"freeze": "stop_gradient", "granularity": "sample", "scale_by_keep": False},
    "two_to_one": {"schedule": (2, 1)},
    "one_to_two": {"schedule": (1, 2)},
    "drop_path_alone": {"schedule": (1, 0)},
    "random": {"schedule": "random", "seed": 1},
    "linear": {"rate_over_depth": "linear"},
    "late": {"rate_over_time": "late", "total_iterations": 4},
}
BOTH = {"drop_path", "dropped_part"}


def expected_learners(tiny: TinyModel, rdp: ResidualDropPath, learning: set[int]) -> set[str]:
    """The twin's answer by name; where whole branches are dropped, checked against DESIGN.md."""
    names = list(tiny.branches)
    learners = {TRUNK if owner < 0 else names[owner] for owner in learning}
    if rdp.options.granularity == "batch":
        plan = rdp.plan
        trunk = {TRUNK} if plan.kind == "drop_path" or rdp.options.train_trunk else set()
        assert learners == trunk | set(plan.kept if plan.kind == "drop_path" else plan.dropped)
    return learners


@pytest.fixture(autouse=True, scope="module")
def one_graph_per_twin() -> Iterator[None]:
    """Tracing takes most of the time of these tests, and the same twins serve all of them."""
    graphs: dict[tuple, fx.Graph] = {}

    def trace(block: nn.Module, form: CallForm, way: GuardOutcomes, outputs_read: frozenset[int] | None) -> fx.Graph:
        key = block, form.key, way, outputs_read
        if key not in graphs:
            graphs[key] = trace_block(block, form, way, outputs_read)
        return graphs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "trace_block", trace)
        yield


@functools.cache
def twin_of(name: str) -> nn.Module:
    return BY_NAME[name].build()


def check_iteration(tiny: TinyModel, model: nn.Module, rdp: ResidualDropPath, rows: int = 5) -> None:
    twin = twin_of(tiny.name)
    twin.load_state_dict(model.state_dict())
    twin.zero_grad()
    inputs = tiny.inputs(seed=rdp.iteration, rows=rows)
    fast = forward_backward(model, inputs, seed=rdp.iteration)
    with reference.reference_iteration(twin, rdp.plan, rdp.options, rows) as learning:
        slow = forward_backward(twin, inputs, seed=rdp.iteration)

    assert_close(fast.output, slow.output, "output")
    assert_close(fast.loss, slow.loss, "loss")
    learners = expected_learners(tiny, rdp, learning)
    for name, owner in tiny.owners(model).items():
        gradient, expected = fast.gradients[name], slow.gradients[name]
        if owner in learners:
            assert gradient is not None and expected is not None, name
            assert_close(gradient, expected, f"gradient of {name}")
        else:
            assert gradient is None, f"{name} is frozen or dropped"
    expected_buffers = buffers_of(twin)  # only now has the twin put back those of frozen norms
    for name, buffer in buffers_of(model).items():
        assert_close(buffer, expected_buffers[name], f"buffer {name}")
    assert_equal(fast.random_state, slow.random_state, "state of the random generator")


@every_model
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_equals_the_twin(tiny: TinyModel, options: Options) -> None:
    check_until_both_kinds(tiny, options)


@pytest.mark.parametrize("tiny", HAND_WRITTEN, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize("options", PLAN_OPTIONS.values(), ids=PLAN_OPTIONS.keys())
def test_equals_the_twin_under_other_plans(tiny: TinyModel, options: Options) -> None:
    check_until_both_kinds(tiny, options)


def check_until_both_kinds(tiny: TinyModel, options: Options) -> None:
    options = {"drop_path_rate": 0.5, "rate_over_depth": "uniform", "seed": 3, **options}
    if tiny.draws_random_numbers and options.get("granularity") == "sample":
        pytest.skip("running some rows only draws other random numbers than running all")
    model = tiny.build()
    rdp = ResidualDropPath(model, **options)
    expected = {"drop_path"} if options.get("schedule") == (1, 0) else BOTH
    seen = set()
    for _ in range(8):  # until each kind has been seen, with something dropped
        if rdp.plan.dropped:
            seen.add(rdp.kind)
        check_iteration(tiny, model, rdp)
        if seen == expected:
            return
        sgd_step(model)
        rdp.step()
    raise AssertionError(f"only {seen} of {expected} came up")


@every_model
@pytest.mark.parametrize("rows", [4, 7])
def test_rows_beyond_those_of_the_deciding_draw(tiny: TinyModel, rows: int) -> None:
    """The mask of a `dropped_part` iteration is cut or extended where the batch size differs."""
    if tiny.draws_random_numbers:
        pytest.skip("running some rows only draws other random numbers than running all")
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze="stop_gradient", granularity="sample")
    check_iteration(tiny, model, rdp, rows=5)
    sgd_step(model)
    rdp.step()
    check_iteration(tiny, model, rdp, rows=rows)


@some_models("own_add", "two_adds", "timm_basic")
@pytest.mark.parametrize("frozen_norm", ["batch", "running"])
def test_norms_of_a_branch_that_no_row_drops_are_frozen(tiny: TinyModel, frozen_norm: Any) -> None:
    model = tiny.build()
    options: Options = {"freeze": "stop_gradient", "granularity": "sample", "frozen_norm": frozen_norm}
    rdp = ResidualDropPath(model, 0.2, rate_over_depth="uniform", **options)
    num_whole = 0
    for _ in range(4):
        num_whole += rdp.kind == "dropped_part" and not bool(rdp.plan.mask(3).any(dim=1).all())
        check_iteration(tiny, model, rdp, rows=3)
        sgd_step(model)
        rdp.step()
    assert num_whole > 0


@every_model
def test_everything_dropped_leaves_the_shortcuts_alone(tiny: TinyModel) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 1 - 1e-9, rate_over_depth="uniform")
    assert set(rdp.plan.dropped) == set(tiny.branches)
    check_iteration(tiny, model, rdp)
    rdp.step()
    sgd_step(model)
    check_iteration(tiny, model, rdp)
    assert all(p.grad is None for name, p in model.named_parameters() if tiny.owners(model)[name] == TRUNK)


def test_the_random_generator_moves_where_dropout_is_kept() -> None:
    """Else the comparison of its states above would say nothing."""
    before = torch.random.manual_seed(0).get_state()
    trace = forward_backward(BY_NAME["dropout"].build(), BY_NAME["dropout"].inputs())
    assert not torch.equal(trace.random_state, before)
