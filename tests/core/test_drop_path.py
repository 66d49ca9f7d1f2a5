"""`DropPath`: drop path alone, under the name that it is searched by."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from residualdroppath import DropPath, Options, ResidualDropPath
from residualdroppath.core.options import OF_DROPPED_PART

from .stepping import assert_equal, forward_backward, sgd_step
from .tiny_models import BY_NAME

ITERATIONS = 12


def weights_after_training(of: type[ResidualDropPath], **options: Any) -> dict[str, torch.Tensor]:
    own = BY_NAME["own_add"]
    torch.manual_seed(0)
    model = own.build()
    drop_path = of(model, 0.5, rate_over_depth="uniform", **options)
    for iteration in range(ITERATIONS):
        forward_backward(model, own.inputs(), seed=iteration)
        sgd_step(model)
        drop_path.step()
    assert drop_path.iteration == ITERATIONS and drop_path.kind == "drop_path"
    return model.state_dict()


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_equals_the_method_without_dropped_part_iterations(granularity: str) -> None:
    freeze = {"freeze": "stop_gradient"} if granularity == "sample" else {}
    alone = weights_after_training(DropPath, granularity=granularity)
    assert_equal(alone, weights_after_training(ResidualDropPath, granularity=granularity, schedule=(1, 0), **freeze))
    other = weights_after_training(ResidualDropPath, granularity=granularity, **freeze)
    assert any(not torch.equal(alone[name], other[name]) for name in alone)


def test_dropped_branches_do_not_run_and_rates_are_those_given() -> None:
    own = BY_NAME["own_add"]
    model = own.build()
    drop_path = DropPath(model, 0.5, rate_over_depth="uniform", drop_rates={"*": 0.25})
    ran = dict.fromkeys((branch.name for branch in drop_path.branches), 0)
    for branch in drop_path.branches:
        first = next(module for module in branch.block.modules() if isinstance(module, nn.Conv2d | nn.Linear))
        first.register_forward_hook(lambda *_, name=branch.name: ran.__setitem__(name, ran[name] + 1))
    expected, iterations = dict.fromkeys(ran, 0), 200
    for _ in range(iterations):
        model(own.inputs())
        for name in expected:
            expected[name] += name not in drop_path.plan.dropped
        drop_path.step()
    assert ran == expected
    shares = [1 - count / iterations for count in ran.values()]
    assert all(0.1 < share < 0.4 for share in shares), shares


def test_copies_stay_what_they_are() -> None:
    drop_path = DropPath(BY_NAME["own_add"].build(), 0.3, seed=5)
    for _ in range(3):
        drop_path.step()
    for twin in (copy.deepcopy(drop_path), pickle.loads(pickle.dumps(drop_path))):
        assert type(twin) is DropPath and twin.plan == drop_path.plan and twin.options == drop_path.options
    resumed = DropPath(BY_NAME["own_add"].build(), 0.3, seed=5)
    resumed.load_state_dict(drop_path.state_dict())
    assert resumed.plan == drop_path.plan


def test_shows_its_name_and_no_option_without_effect() -> None:
    head = repr(DropPath(BY_NAME["own_add"].build(), 0.3)).splitlines()[0]
    assert head.startswith("DropPath(drop_path_rate=0.3, ")
    assert not [name for name in OF_DROPPED_PART if name in head]
    head = repr(ResidualDropPath(BY_NAME["own_add"].build(), 0.3)).splitlines()[0]
    assert head.startswith("ResidualDropPath(") and all(f"{name}=" in head for name in OF_DROPPED_PART)


def test_rows_are_said_to_be_dropped_one_by_one() -> None:
    shown = repr(DropPath(BY_NAME["own_add"].build(), 0.9, granularity="sample"))
    assert "branches dropped, row by row" in shown


@pytest.mark.parametrize("name", ["schedule", *OF_DROPPED_PART])
def test_options_of_dropped_part_iterations_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"DropPath has no option `{name}`: .* use ResidualDropPath"):
        DropPath(BY_NAME["own_add"].build(), **{name: getattr(Options(), name)})


def test_options_of_the_method_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`options.schedule` must be \(1, 0\) for DropPath, got \(1, 1\)"):
        DropPath(BY_NAME["own_add"].build(), options=Options())
    with pytest.raises(TypeError, match="no option `rate`"):
        DropPath(BY_NAME["own_add"].build(), rate=0.1)
    DropPath(BY_NAME["own_add"].build(), options=Options(schedule=(1, 0)))
