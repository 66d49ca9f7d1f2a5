"""Every contract on the table of tiny models, and cases of the twin that its options alone do not bring about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest
import torch

from contracts.by_hand import TRUNK
from contracts.discover_once import twin_traced_once
from contracts.option_pairs import OPTIONS, ROWS, ROWS_OF_A_MODE, TABLE, Options, row_of_each_mode
from contracts.walk import Walk, check_contracts
from residualdroppath import ResidualDropPath

from .stepping import forward_backward, sgd_step
from .tiny_models import BY_NAME, TinyModel, every_model, some_models
from .tiny_models import TABLE as TINY


@pytest.fixture(autouse=True, scope="module")
def tracing_once() -> Iterator[None]:
    with twin_traced_once():
        yield


def rows_of_batches(number: int) -> Callable[[int], int]:
    """The mask of a `dropped_part` iteration is cut or extended where the batch size differs."""
    return lambda iteration: 5 if iteration % 2 == 0 else (4, 7)[number % 2]


@every_model
def test_contracts(tiny: TinyModel) -> None:
    number = TINY.index(tiny)
    check_contracts(tiny.subject(rows_of_batches(number)), row_of_each_mode(number))


@pytest.mark.full
@every_model
def test_contracts_under_all_options(tiny: TinyModel) -> None:
    check_contracts(tiny.subject(rows_of_batches(TINY.index(tiny) + 1)), ROWS)


def test_rows_of_options_hold_every_pair_of_values() -> None:
    assert len(TABLE[0]) == 1 + len(OPTIONS) + 2
    for first, second in combinations(zip(*TABLE, strict=True), 2):
        impossible = int({"sample", "plain"} <= {*first, *second})
        assert len(set(zip(first, second, strict=True))) == len(set(first)) * len(set(second)) - impossible
    used = [row for number in range(ROWS_OF_A_MODE) for row in row_of_each_mode(number)]
    assert sorted(map(str, used)) == sorted(map(str, ROWS))


@some_models("own_add", "two_adds", "timm_basic")
@pytest.mark.parametrize("frozen_norm", ["batch", "running"])
def test_norms_of_a_branch_that_no_row_drops_are_frozen(tiny: TinyModel, frozen_norm: Any) -> None:
    model = tiny.build()
    options: Options = {"freeze": "stop_gradient", "granularity": "sample", "frozen_norm": frozen_norm}
    walk = Walk(tiny.subject(rows=lambda iteration: 3), model)
    rdp = ResidualDropPath(model, 0.2, rate_over_depth="uniform", **options)
    walk.branches_are_as_expected(rdp)
    num_whole = 0
    for _ in range(4):
        num_whole += rdp.kind == "dropped_part" and not bool(rdp.plan.mask(3).any(dim=1).all())
        walk.iteration_is_the_twins(rdp)
        sgd_step(model)
        rdp.step()
    assert num_whole > 0


@every_model
def test_everything_dropped_leaves_the_shortcuts_alone(tiny: TinyModel) -> None:
    model = tiny.build()
    walk = Walk(tiny.subject(), model)
    rdp = ResidualDropPath(model, 1 - 1e-9, rate_over_depth="uniform")
    walk.branches_are_as_expected(rdp)
    assert set(rdp.plan.dropped) == set(tiny.branches)
    walk.iteration_is_the_twins(rdp)
    rdp.step()
    sgd_step(model)
    walk.iteration_is_the_twins(rdp)
    assert all(p.grad is None for name, p in model.named_parameters() if tiny.owners(model)[name] == TRUNK)


def test_the_random_generator_moves_where_dropout_is_kept() -> None:
    """Else the comparison of its states would say nothing."""
    before = torch.random.manual_seed(0).get_state()
    trace = forward_backward(BY_NAME["dropout"].build(), BY_NAME["dropout"].inputs())
    assert not torch.equal(trace.random_state, before)
