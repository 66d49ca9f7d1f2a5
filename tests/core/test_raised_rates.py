"""One warning where draws that are drawn again raise a rate to more than twice the nominal one."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from torch import nn

from residualdroppath import ResidualDropPath

from .tiny_blocks import OwnAdd

PATTERN = "The effective rate of the branch"


def stack(depth: int) -> nn.Module:
    return nn.Sequential(*(OwnAdd() for _ in range(depth)))


def test_it_names_branch_rates_and_remedies_once() -> None:
    with pytest.warns(UserWarning, match=PATTERN) as given:
        rdp = ResidualDropPath(stack(4), 0.1)
        for _ in range(4):
            rdp.step()
    assert len(given) == 1 and given[0].filename == __file__
    branch = rdp.branches[1]
    message = str(given[0].message)
    for part in ("branch 1 is", f"{branch.effective_rate:.3g}", f"of {branch.drop_rate:.3g}", "3 of 4 branches"):
        assert part in message
    for remedy in ("higher rates", "`empty_draw='plain'`"):
        assert remedy in message
    assert "balanced" not in message  # rates that add up to 0.2 are raised fivefold there too


def test_balanced_draws_are_named_where_they_help() -> None:
    with pytest.warns(UserWarning, match="`draw='balanced'`"):
        ResidualDropPath(stack(6), 0.1, rate_over_depth="uniform")  # add up to 0.6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ResidualDropPath(stack(6), 0.1, rate_over_depth="uniform", draw="balanced")
    with pytest.warns(UserWarning, match="of the branch 0 is 0.5, over twice its nominal rate of 0.1,"):
        ResidualDropPath(stack(2), 0.1, rate_over_depth="uniform", draw="balanced")


def test_rows_cannot_be_plain() -> None:
    with pytest.warns(UserWarning, match=PATTERN) as given:
        ResidualDropPath(stack(4), 0.1, freeze="stop_gradient", granularity="sample")
    assert "empty_draw" not in str(given[0].message)


@pytest.mark.parametrize(
    "options",
    [
        {"empty_draw": "plain"},
        {"schedule": (1, 0)},
        {"drop_path_rate": 0.5, "rate_over_depth": "uniform"},
        {"drop_path_rate": 0.0},
    ],
    ids=str,
)
def test_no_warning(options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ResidualDropPath(stack(4), **{"drop_path_rate": 0.1, **options})


def test_a_branch_that_is_always_dropped_has_a_warning_of_its_own() -> None:
    with pytest.warns(UserWarning) as given:
        ResidualDropPath(stack(2), 0.1)
    assert len(given) == 1 and "is dropped in every drop_path iteration" in str(given[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ResidualDropPath(stack(2), 0.1, empty_draw="plain")
