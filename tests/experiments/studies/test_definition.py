"""What a study file may hold, and the one line that refuses the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from residualdroppath.errors import UserError
from residualdroppath.experiments.studies.definition import Budget, read_study
from residualdroppath.training.recipe import TrainConfig

from .tiny_studies import BASE, study, written


def refused(tmp_path: Path, **changes: Any) -> str:
    path = written(tmp_path / "study.yaml", **changes)
    with pytest.raises(UserError) as error:
        read_study(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_read_from_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "study.yaml", seeds=3, budget="cost")
    found = read_study(path, base={"data_dir": "elsewhere"})
    assert found.seeds == (0, 1, 2) and found.budgets == (Budget("cost", 1.0),)
    expected = {**BASE, "data_dir": "elsewhere", "method": "residual_drop_path", "drop_path_rate": 0.5}
    assert found.config({}, "ours", {}) == TrainConfig.model_validate(expected)
    assert read_study(path, seeds=7).seeds == tuple(range(7))


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("iterations", [("iterations", 1)]),
        (["cost", "trunk_updates"], [("cost", 1), ("trunk_updates", 1)]),
        ({"cost": 0.7}, [("cost", 0.7)]),
        ({"cost": [0.7, 1], "iterations": 2}, [("cost", 0.7), ("cost", 1), ("iterations", 2)]),
    ],
)
def test_budgets(budget: Any, expected: list[tuple[str, float]]) -> None:
    assert list(study(budget=budget).budgets) == expected
    own = study(variants={"plain": {"method": "plain", "budget": budget}, "ours": {}})
    assert list(own.budgets_of("plain")) == expected and own.budgets_of("ours") == (("iterations", 1),)


def test_grid_of_a_variant_is_all_combinations_and_tries_are_a_list() -> None:
    found = study(
        variants={
            "a": {"grid": {"lr": [0.1, 0.2], "drop_path_rate": [0.3, 0.4]}},
            "b": {"tries": [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}, {}]},
            "c": {"like": "a", "freeze": "stop_gradient"},
        }
    )
    assert len(found.tries_of("a")) == 4 and found.tries_of("c") == found.tries_of("a")
    config = found.config({}, "c", found.tries_of("c")[1]).model_dump()
    assert (config["lr"], config["drop_path_rate"], config["freeze"]) == (0.1, 0.4, "stop_gradient")


def test_a_try_counts_over_its_variant_and_a_variant_over_the_choice_that_it_takes_over() -> None:
    found = study(
        variants={
            "a": {"drop_path_rate": 0.5, "lr": 0.3, "tries": [{"drop_path_rate": 0.2}, {"lr": 0.1}]},
            "b": {"like": "a", "lr": 0.7},
        }
    )
    options = [
        [(values["drop_path_rate"], values["lr"]) for values in configs]
        for name in "ab"
        for configs in [[found.config({}, name, tried).model_dump() for tried in found.tries_of(name)]]
    ]
    assert options == [[(0.2, 0.3), (0.5, 0.1)], [(0.2, 0.7), (0.5, 0.7)]]


def test_points_of_the_grid() -> None:
    found = study(grid={"train_size": [50, 100], "num_classes": [3, 5]})
    assert found.points[1] == {"train_size": 50, "num_classes": 5} and len(found.points) == 4
    assert found.config(found.points[1], "plain", {}).num_classes == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "`name`"),
        ({"question": ""}, "`question`"),
        ({"extra": 1}, "`extra` is not an option"),
        ({"seeds": 0}, "`seeds`"),
        ({"seeds": [1, 1]}, "different seeds"),
        ({"tune": {"seeds": [7, 1]}, "variants": {"a": {"tries": [{"lr": 1}]}}}, "are not tested, got 1 in both"),
        ({"budget": "time"}, "one or more of iterations, trunk_updates, cost"),
        ({"budget": {"cost": 0}}, "scale of a budget"),
        ({"variants": {}}, "`variants`"),
        ({"variants": {"a": 3}}, "variant a must hold"),
        ({"variants": {"a": {"speed": 3}}}, "`speed` of variant a is not an option"),
        ({"variants": {"a": {"lr": -1}}}, "`lr`"),
        ({"variants": {"a": {"seed": 3}}}, "`seed` is set by the study itself"),
        ({"base": {"test": True}}, "`test` is set by the study itself"),
        ({"grid": {"sizes": [3]}}, "`sizes` of base or grid"),
        ({"grid": {"lr": []}}, "no value for lr"),
        ({"grid": {"lr": [1]}, "variants": {"a": {"lr": 2}}}, "`grid` varies `lr`, which variant a sets"),
        ({"grid": {"lr": [1]}, "variants": {"a": {"tries": [{"lr": 2}]}}}, "`grid` varies `lr`, which variant a sets"),
        ({"variants": {"a": {"grid": {"lr": 1}}}}, "`grid` of variant a"),
        ({"variants": {"a": {"grid": {"lr": [1]}, "tries": []}}}, "one of `grid`, `tries` and `like`"),
        ({"variants": {"a": {"like": "b"}}}, "`like` of variant a"),
        ({"variants": {"a": {"grid": {"lr": [0.1, 0.2]}}, "b": {}}}, "a has 2, b has 0"),
        ({"variants": {"a": {"grid": {"lr": [0.1, 0.2]}}, "b": {"tries": [{"lr": 1}]}}}, "a has 2, b has 1"),
        ({"seeds": 10_001}, "at most 10,000 seeds"),
        ({"tune": {"seeds": []}}, "a list of different seeds"),
        ({"tune": {"seeds": [7, 7]}}, "a list of different seeds"),
        ({"budget": {"cost": []}}, "cost must have a scale or a list of scales"),
        ({"budget": {"iterations": 1e30}}, "at most 1,000, got 1e+30"),
        ({"variants": {"a": {"budget": {"cost": []}}}}, "cost must have a scale"),
        ({"variants": {1: {}, "1": {}}}, "different names, also written as text"),
        ({"variants": {"": {}}}, "a variant's name must be a line of text"),
        ({"variants": {"a\nb": {}}}, "a variant's name must be a line of text"),
        ({"variants": {"-a": {}}}, "does not begin with -, got '-a'"),  # `--only` would take it for an option
        ({"variants": {"a": {"data_dir": "/x"}}}, "`data_dir` is the same for all runs of a study"),
        ({"variants": {"a": {"tries": [{"download": True}]}}}, "`download` is the same for all runs of a study"),
        ({"grid": {"threads": [1, 2]}}, "`threads` is the same for all runs of a study"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refused(tmp_path, **changes)


def test_values_received_are_told_once_and_not_at_length(tmp_path: Path) -> None:
    assert refused(tmp_path, budget={"cost": True}).count("got") == 1
    many = {str(number): {} for number in range(1000)}
    assert len(refused(tmp_path, variants={**many, "a": {"speed": 3}})) < 1000


def test_names_may_be_numbers_and_a_measure_is_taken_once() -> None:
    found = study(variants={1: {}, "b": {"like": 1}}, measures=["elastic_depth", "elastic_depth"])
    assert found.variants["b"].like == "1" and found.measures == ("elastic_depth",)


def test_files_that_hold_no_study(tmp_path: Path) -> None:
    for text in ("[1]", "{", ""):
        (tmp_path / "study.yaml").write_text(text)
        with pytest.raises(UserError, match="study.yaml"):
            read_study(tmp_path / "study.yaml")
    with pytest.raises(UserError, match="none.yaml cannot be read"):
        read_study(tmp_path / "none.yaml")


# In minutes, or with settings that another study has chosen.
UNTUNED = ("gpu_cifar10", "demo", "information_per_class", "levers_whole", "spread", "underfit_small")
OF_ONE_METHOD = ("levers",)  # searched on validation data, over plain training's budget
STUDIES = sorted((Path(__file__).parents[3] / "recipes" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_of_the_checkout(path: Path) -> None:
    found = read_study(path)
    assert found.tuned == (path.stem not in UNTUNED) and len(found.seeds) >= 5
    configs = [found.config({}, name, found.tries_of(name)[0]) for name in found.variants]
    wanted = {"residual_drop_path"} if path.stem in OF_ONE_METHOD else {"plain", "residual_drop_path"}
    assert wanted <= {config.method for config in configs}
