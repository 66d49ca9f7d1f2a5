"""Options of the method come from `Options` alone: recipes hold each of them, and give them back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pytest
from pydantic import ValidationError, create_model

from residualdroppath.core.options import Options
from residualdroppath.training import method_options
from residualdroppath.training.method_options import OF_THE_RUN, OPTIONS, option, option_fields
from residualdroppath.training.recipe import Recipe, TrainConfig
from residualdroppath.training.run import load_config_data
from residualdroppath.training.trainer import Trainer

from .tiny_runs import tiny


@dataclass(frozen=True)
class Extended(Options):
    """As `Options` may become."""

    strength: float | Literal["own"] = field(default=0.5, metadata={"description": "how strongly"})
    names: tuple[str, ...] = field(default_factory=lambda: ("a", "b"), metadata={"description": "which"})
    progress: Literal["fast"] | Callable[[float], float] | None = field(
        default=None, metadata={"description": "how fast"}
    )


def test_a_recipe_holds_every_option_with_its_default() -> None:
    assert {own.name for own in fields(Options)} == {*option_fields(), *OF_THE_RUN}
    assert option_fields().keys() <= Recipe.model_fields.keys()
    assert Recipe().options(seed=3, total_iterations=7) == Options(
        seed=3, total_iterations=7, rate_over_time="constant"
    )
    assert all(Recipe.model_fields[name].description for name in option_fields())


def test_values_come_back() -> None:
    values: dict[str, Any] = {
        "drop_path_rate": 0.3,
        "rate_over_depth": "uniform",
        "freeze": "stop_gradient",
        "granularity": "sample",
        "scale_by_keep": False,
        "frozen_norm": "running",
        "schedule": (2, 3),
        "rate_over_time": "late",
        "train_trunk": True,
    }
    found = Recipe.model_validate(values).options(seed=1, total_iterations=9)
    assert found == Options(**values, seed=1, total_iterations=9)
    assert not [name for name, value in values.items() if getattr(Options(), name) == value]


@pytest.mark.parametrize("value", [None, "sometimes", lambda progress: 1.0])
def test_what_no_file_can_name_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="rate_over_time"):
        Recipe.model_validate({"rate_over_time": value})


@pytest.mark.parametrize("seed", [0, 5])
def test_trainers_hand_them_to_the_method(seed: int) -> None:
    config = tiny(drop_path_rate=0.4, schedule=(2, 1), rate_over_time="early", train_trunk=True, seed=seed)
    data = load_config_data(config)
    expected = config.options(seed=seed, total_iterations=6)
    rdp = Trainer(config, data).rdp
    assert rdp is not None and rdp.options == expected and expected.schedule == (2, 1)
    drop_path = Trainer(config.model_copy(update={"method": "drop_path"}), data).rdp
    assert drop_path is not None and drop_path.options.as_dict() == {**expected.as_dict(), "schedule": [1, 0]}


def test_a_new_option_is_a_new_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_options, "Options", Extended)
    monkeypatch.setattr(method_options, "OPTIONS", {own.name: own for own in fields(Extended)})
    made: Any = create_model("Made", **option_fields())
    assert made().strength == 0.5 and made(strength="own").strength == "own"
    assert made.model_fields["strength"].description == "how strongly"
    assert made().names == ("a", "b") and made(names=["c"]).names == ("c",)
    assert made().progress is None and made(progress="fast").progress == "fast"
    with pytest.raises(ValidationError, match="progress"):
        made(progress=lambda value: value)


def test_a_single_option_may_have_its_own_bounds() -> None:
    narrow: Any = create_model("Narrow", rate=(float, option("drop_path_rate", gt=0, default=0.2)))
    assert narrow().rate == 0.2
    assert narrow.model_fields["rate"].description == OPTIONS["drop_path_rate"].metadata["description"]
    with pytest.raises(ValidationError, match="greater than 0"):
        narrow(rate=0.0)


def test_an_old_recipe_is_read() -> None:
    old = {"drop_path_rate": 0.1, "schedule": [1, 1], "rate_over_time": "constant", "method": "drop_path", "seed": 4}
    assert TrainConfig.model_validate(old) == TrainConfig(method="drop_path", seed=4)
