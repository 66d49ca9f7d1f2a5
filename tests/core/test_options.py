"""Every invalid option is an error that names the argument, what is allowed, and what was received."""

from __future__ import annotations

from dataclasses import fields
from inspect import signature
from typing import Any

import pytest

from residualdroppath import ResidualDropPath
from residualdroppath.core.options import Options

from .tiny_models import BY_NAME

INVALID: list[tuple[str, Any, str]] = [
    ("drop_path_rate", 1.0, "[0, 1)"),
    ("drop_path_rate", 1.2, "[0, 1)"),
    ("drop_path_rate", -0.1, "[0, 1)"),
    ("drop_path_rate", float("nan"), "[0, 1)"),
    ("drop_path_rate", "0.1", "[0, 1)"),
    ("drop_path_rate", None, "[0, 1)"),
    ("drop_path_rate", True, "[0, 1)"),
    ("rate_over_depth", "exponential", "'linear', 'uniform'"),
    ("rate_over_depth", None, "'linear', 'uniform'"),
    ("freeze", "nothing", "'parameters', 'stop_gradient'"),
    ("freeze", True, "'parameters', 'stop_gradient'"),
    ("granularity", "row", "'batch', 'sample'"),
    ("frozen_norm", "eval", "'update', 'batch', 'running'"),
    ("scale_by_keep", "yes", "True, False"),
    ("scale_by_keep", None, "True, False"),
    ("train_trunk", "no", "True, False"),
    ("schedule", "alternate", "'random' or"),
    ("schedule", (0, 1), ">= 1"),
    ("schedule", (1, -1), ">= 0"),
    ("schedule", (1, 1, 1), "'random' or"),
    ("schedule", (1.0, 1), "'random' or"),
    ("schedule", (True, 1), "'random' or"),
    ("schedule", 1, "'random' or"),
    ("rate_over_time", "cosine", "'constant', 'warmup', 'early', 'late'"),
    ("rate_over_time", 0.5, "'constant', 'warmup', 'early', 'late'"),
    ("total_iterations", 0, "positive integer"),
    ("total_iterations", 1.5, "positive integer"),
    ("seed", 1.5, "integer"),
    ("seed", None, "integer"),
    ("seed", True, "integer"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), INVALID, ids=lambda value: str(value))
def test_invalid_values(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError) as raised:
        ResidualDropPath(BY_NAME["own_add"].build(), **{name: value})
    message = str(raised.value)
    assert f"`{name}`" in message and allowed in message and repr(value) in message


def test_every_option_has_an_invalid_value_here() -> None:
    assert {name for name, _, _ in INVALID} == {field.name for field in fields(Options)}


def test_options_and_arguments_are_the_same_with_the_same_defaults() -> None:
    arguments = list(signature(ResidualDropPath).parameters.values())[1:]
    assert {p.name: p.default for p in arguments} == {field.name: field.default for field in fields(Options)}
    assert [p.name for p in arguments if p.kind is not p.KEYWORD_ONLY] == ["drop_path_rate"]


def test_sample_goes_with_stop_gradient_only() -> None:
    with pytest.raises(ValueError) as raised:
        ResidualDropPath(BY_NAME["own_add"].build(), granularity="sample")
    message = str(raised.value)
    for part in ("`granularity='sample'`", "`freeze='stop_gradient'`", "got freeze='parameters'", "cannot be frozen"):
        assert part in message


@pytest.mark.parametrize("rate_over_time", ["warmup", "early", "late", lambda progress: progress])
def test_rates_over_time_need_the_length_of_training(rate_over_time: Any) -> None:
    with pytest.raises(ValueError, match="needs `total_iterations`, got None"):
        ResidualDropPath(BY_NAME["own_add"].build(), rate_over_time=rate_over_time)


def test_an_invalid_option_leaves_the_model_alone() -> None:
    model = BY_NAME["own_add"].build()
    with pytest.raises(ValueError):
        ResidualDropPath(model, schedule=(0, 0))
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_list_is_a_schedule_too() -> None:
    rdp = ResidualDropPath(BY_NAME["own_add"].build(), schedule=[2, 1])  # pyright: ignore[reportArgumentType]
    assert rdp.options.schedule == (2, 1)


@pytest.mark.parametrize("rate", [0, 0.0, 0.999])
def test_rates_at_the_ends_of_the_range(rate: float) -> None:
    assert ResidualDropPath(BY_NAME["own_add"].build(), rate).branches[-1].drop_rate == rate
