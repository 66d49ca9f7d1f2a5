"""A branch that is dropped in every deciding draw, for there is no other, is warned about."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from torch import nn

from residualdroppath import ResidualDropPath

from .tiny_blocks import OwnAdd

PATTERN = "is dropped in every drop_path iteration"


def stack(depth: int) -> nn.Module:
    return nn.Sequential(*(OwnAdd() for _ in range(depth)))


@pytest.mark.parametrize(
    ("depth", "options", "name"),
    [
        (1, {}, "0"),
        (2, {"rate_over_depth": "linear"}, "1"),
        (3, {"rate_over_depth": "uniform", "include": "1"}, "1"),
        (3, {"drop_rates": {"*": 0.0, "2": 0.5}}, "2"),
        (2, {"rate_over_depth": "uniform", "schedule": "random", "exclude": "0"}, "1"),
    ],
)
def test_it_is_named(depth: int, options: dict[str, Any], name: str) -> None:
    with pytest.warns(UserWarning, match=f"The branch {name} {PATTERN}") as given:
        rdp = ResidualDropPath(stack(depth), **{"drop_path_rate": 0.5, **options})
    assert len(given) == 1 and given[0].filename == __file__
    assert [b.effective_rate for b in rdp.branches if b.name == name] == [1.0]
    assert "`schedule=(1, 0)`" in str(given[0].message)


def test_a_branch_alone_that_can_learn() -> None:
    model = stack(2)
    with pytest.warns(UserWarning, match=f"The branch 1 {PATTERN}.*the other 1 have rate 0"):
        for parameter in model.get_submodule("0").parameters():
            parameter.requires_grad = False
        ResidualDropPath(model, 0.5, rate_over_depth="uniform")


@pytest.mark.parametrize(
    ("depth", "options"),
    [
        (1, {"schedule": (1, 0)}),
        (1, {"drop_path_rate": 0.0}),
        (2, {"rate_over_depth": "uniform"}),
        (3, {"rate_over_depth": "linear"}),
    ],
)
def test_no_warning(depth: int, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ResidualDropPath(stack(depth), **{"drop_path_rate": 0.5, **options})
