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
    ("trains", "first", "'last', 'union', 'unrelated', 'all'"),
    ("draw", "shuffled", "'independent', 'balanced'"),
    ("empty_draw", None, "'redraw', 'plain'"),
    ("rate_over_time", "cosine", "'constant', 'warmup', 'early', 'late'"),
    ("rate_over_time", 0.5, "'constant', 'warmup', 'early', 'late'"),
    ("total_iterations", 0, "positive integer"),
    ("total_iterations", 1.5, "positive integer"),
    ("drop_rates", {"blocks.*": 1.0}, "[0, 1)"),
    ("drop_rates", [0.1], "must map patterns"),
    ("include", 3, "pattern over branch names"),
    ("exclude", ("blocks.*", None), "patterns over branch names"),
    ("check_frozen", None, "True, False"),
    ("seed", 1.5, "integer"),
    ("seed", None, "integer"),
    ("seed", True, "integer"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), INVALID, ids=lambda value: str(value))
def test_invalid_values(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError) as raised:
        ResidualDropPath(BY_NAME["own_add"].build(), **{name: value})
    message = str(raised.value)
    received = next(iter(value.values())) if isinstance(value, dict) else value[-1] if name == "exclude" else value
    assert f"`{name}" in message and allowed in message and repr(received) in message


def test_every_option_has_an_invalid_value_here() -> None:
    assert {name for name, _, _ in INVALID} == {field.name for field in fields(Options)}


def test_options_and_arguments_are_the_same_with_the_same_defaults() -> None:
    names = ("model", "example", "options")
    arguments = [p for p in signature(ResidualDropPath).parameters.values() if p.name not in names]
    assert {p.name: p.default for p in arguments} == {
        field.name: getattr(Options(), field.name) for field in fields(Options)
    }
    assert all(field.metadata["description"] for field in fields(Options))
    assert [p.name for p in arguments if p.kind is not p.KEYWORD_ONLY] == ["drop_path_rate"]


def test_sample_goes_with_stop_gradient_only() -> None:
    with pytest.raises(ValueError) as raised:
        ResidualDropPath(BY_NAME["own_add"].build(), granularity="sample")
    message = str(raised.value)
    for part in ("`granularity='sample'`", "`freeze='stop_gradient'`", "got freeze='parameters'", "cannot be frozen"):
        assert part in message


def test_rows_that_drop_nothing_are_redrawn() -> None:
    with pytest.raises(ValueError) as raised:
        ResidualDropPath(BY_NAME["own_add"].build(), granularity="sample", freeze="stop_gradient", empty_draw="plain")
    message = str(raised.value)
    for part in ("`granularity='sample'`", "`empty_draw='redraw'`", "got empty_draw='plain'", "number of rows"):
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


def test_options_can_be_given_as_one() -> None:
    options = Options(drop_path_rate=0.3, schedule=(2, 1), exclude=("blocks.0",))
    rdp = ResidualDropPath(BY_NAME["own_add"].build(), options=options)
    assert rdp.options is options and options.exclude == ("blocks.0",)
    assert [branch.drop_rate for branch in rdp.branches] == [0.0, 0.15, 0.3]


def test_options_and_keywords_do_not_mix() -> None:
    model = BY_NAME["own_add"].build()
    with pytest.raises(TypeError, match="either `options` or keywords, got `options` and seed"):
        ResidualDropPath(model, options=Options(), seed=1)
    with pytest.raises(TypeError, match="no option `drop_rate`; it has drop_path_rate"):
        ResidualDropPath(model, drop_rate=0.1)
    with pytest.raises(TypeError, match="must be an Options, got {}"):
        ResidualDropPath(model, options={})  # pyright: ignore[reportArgumentType]


def test_patterns_must_match_branches() -> None:
    wrong: list[dict[str, Any]] = [{"include": "block.0"}, {"exclude": "block.0"}, {"drop_rates": {"block.0": 0.1}}]
    for option in wrong:
        with pytest.raises(ValueError, match="matches none of 3 .close names: blocks.0"):
            ResidualDropPath(BY_NAME["own_add"].build(), **option)


def test_options_are_checked_before_a_model_is_known() -> None:
    with pytest.raises(ValueError, match=r"`drop_path_rate` must be in \[0, 1\), got 1.0; use 0 to disable"):
        Options(drop_path_rate=1.0)
