"""Every contract on networks drawn at random, against formulas written by hand and against the twin."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from contracts.option_pairs import MODES, Row
from contracts.walk import check_contracts

from .random_blocks import ACTIVATIONS, ADDS, KINDS, BlockSpec, BranchSpec
from .random_networks import NetworkSpec, expected_branches, networks

Check = Callable[[NetworkSpec, Row], None]
FIXED_SEEDS, NETWORKS_PER_SEED = (6, 34, 54, 66), 5
REPEATED = os.environ.get("RANDOM_NETWORKS_SEED")


@st.composite
def rows(draw: DrawFn) -> Row:
    options = {
        "drop_path_rate": draw(st.sampled_from((0.2, 0.4, 0.6))),
        "rate_over_depth": draw(st.sampled_from(("linear", "uniform"))),
        "scale_by_keep": draw(st.booleans()),
        "frozen_norm": draw(st.sampled_from(("update", "batch", "running"))),
        "schedule": draw(st.sampled_from(((1, 1), (1, 1), (2, 1), (1, 2), (1, 0), "random"))),
        "train_trunk": draw(st.sampled_from((False, False, True))),
    }
    mode = MODES[draw(st.sampled_from(sorted(MODES)))]
    return Row({**mode, **options}, zero_first=draw(st.booleans()), set_to_none=draw(st.booleans()))


def for_random_networks(check: Check, seed: int, number: int) -> None:
    """The same networks for the same seed and versions, however long each takes."""

    @hypothesis.seed(seed)
    @settings(
        max_examples=number,
        phases=(Phase.generate,),  # making a failing network smaller takes many minutes
        deadline=None,
        database=None,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
    )
    @given(networks(), rows())
    def checked(spec: NetworkSpec, row: Row) -> None:
        assume(expected_branches(spec).can_be_dropped(row.options))
        check(spec, row)

    checked()


def hold_to_contracts(spec: NetworkSpec, row: Row) -> None:
    check_contracts(spec.subject(), [row])


@pytest.mark.parametrize("seed", FIXED_SEEDS)
def test_contracts(seed: int) -> None:
    for_random_networks(hold_to_contracts, seed, NETWORKS_PER_SEED)


@pytest.mark.full
@pytest.mark.parametrize("part", [0] if REPEATED else range(8))
def test_contracts_of_new_networks(part: int) -> None:
    """Other networks at every run; what fails says with which seed it is repeated."""
    seed = int(REPEATED) if REPEATED else secrets.randbelow(10**9)
    try:
        for_random_networks(hold_to_contracts, seed, 30)
    except Exception as error:
        error.add_note(f"To repeat: RANDOM_NETWORKS_SEED={seed} pytest -m full {__file__}")
        raise


SHORTCUTS = {"identity", "projection", "projection norm", "scaled", "pad", "pool", "pool projection norm"}


def test_the_fixed_networks_use_every_piece() -> None:
    used: defaultdict[str, set[Any]] = defaultdict(set)

    def note(part: Any) -> None:
        for name, value in vars(part).items():
            for item in value if isinstance(value, tuple) else [value]:
                used[name].add(type(item))
                if isinstance(item, BlockSpec | BranchSpec):
                    note(item)
                elif not isinstance(item, dict):
                    used[name].add(item)

    def note_case(spec: NetworkSpec, row: Row) -> None:
        note(spec)
        note(row)
        used["mode"].add((row.options["freeze"], row.options["granularity"]))

    for seed in FIXED_SEEDS:
        for_random_networks(note_case, seed, NETWORKS_PER_SEED)
    assert used["kind"] >= set(KINDS) and used["add"] >= set(ADDS) and used["act"] >= set(ACTIVATIONS)
    assert used["shortcut"] >= SHORTCUTS and used["body"] >= {"sequential", "stages", "list", "reversed"}
    assert used["after"] >= {"", "relu", "relu_", "F.relu_", "norm", "last part"} and used["stride"] >= {1, 2}
    assert used["scale"] >= {"none", "number", "module", "vector", "scalar"} and len(used["mode"]) == 3
    assert used["masks"] >= {"none", "keyword", "position"} and used["items"] >= {int, "relu", "relu_"}
    for block in ("inner", "before", "behind"):
        assert used[block] >= {BlockSpec, None}
    assert used["share"] >= {int, None} and used["tie_head"] >= {int, None}
