"""`rdp.compile()` and the user's own `torch.compile(model)`: few graphs, and everything as without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from residualdroppath import ResidualDropPath
from residualdroppath.core.options import Freeze

from .stepping import assert_close, assert_equal, buffers_of, forward_backward, sgd_step
from .tiny_models import BY_NAME, TinyModel, some_models

# Dynamo itself looks at `.grad` of tensors that are no leaves.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

ITERATIONS = 50
GRAPHS_PER_BRANCH = 6  # trained or frozen, with and without a gradient to its input, without a graph
GRAPHS_OF_THE_TRUNK = 8


@pytest.fixture(autouse=True)
def fresh_counters() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("factors_stay_outside")
@pytest.mark.parametrize(
    ("compiled", "name", "freeze"),
    [
        ("branches", "own_add", "parameters"),
        ("branches", "inplace_add", "stop_gradient"),
        ("model", "own_add", "stop_gradient"),
        ("both", "layer_scale", "parameters"),
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in [
                ("branches", "timm_basic", "parameters"),
                ("branches", "timm_basic", "stop_gradient"),
                ("branches", "timm_vit", "parameters"),
                ("branches", "layer_scale", "parameters"),
                ("model", "timm_basic", "stop_gradient"),
                ("model", "timm_vit", "parameters"),
                ("both", "timm_basic", "parameters"),
                ("both", "timm_vit", "stop_gradient"),
            ]
        ),
    ],
)
def test_few_graphs_and_the_same_gradients(name: str, freeze: Freeze, compiled: str) -> None:
    """Also where `requires_grad` toggles, which once reused a wrong graph (pytorch #139476)."""
    tiny = BY_NAME[name]
    networks = [tiny.build(), tiny.build()]
    rdps = [ResidualDropPath(n, 0.5, rate_over_depth="uniform", freeze=freeze) for n in networks]
    if compiled != "model":
        rdps[0].compile(backend="aot_eager")
    if compiled == "branches":
        runs = networks
    else:
        runs = [cast(nn.Module, torch.compile(networks[0], backend="aot_eager")), networks[1]]
    plans = set()
    for iteration in range(ITERATIONS if compiled == "branches" else 16):
        traces = [forward_backward(run, tiny.inputs(seed=iteration)) for run in runs]
        assert_close(traces[0].output, traces[1].output, "output")
        assert_close_gradients(networks)
        for network, rdp in zip(networks, rdps, strict=True):
            sgd_step(network)
            rdp.step()
        plans.add((rdps[0].kind, rdps[0].plan.dropped))
    assert_equal(buffers_of(networks[0]), buffers_of(networks[1]))
    assert len(plans) > 3
    assert not counters["recompile_limit"]
    allowed = len(tiny.branches) * (GRAPHS_PER_BRANCH if compiled != "model" else 0)
    allowed += GRAPHS_OF_THE_TRUNK if compiled != "branches" else 0
    assert 0 < counters["stats"]["unique_graphs"] <= allowed


def assert_close_gradients(networks: list[nn.Module]) -> None:
    pairs = zip(networks[0].named_parameters(), networks[1].parameters(), strict=True)
    for (name, own), other in pairs:
        if own.grad is None or other.grad is None:
            assert own.grad is other.grad, name
        else:
            assert_close(own.grad, other.grad, name)


@some_models("own_add")
def test_paused_and_evaluation_are_plain_and_not_compiled(tiny: TinyModel) -> None:
    model, plain = tiny.build(), tiny.build()
    rdp = ResidualDropPath(model, 0.5)
    rdp.compile(backend="eager")
    with rdp.paused():
        assert_equal(model(tiny.inputs()), plain(tiny.inputs()))
    assert_equal(model.eval()(tiny.inputs()), plain.eval()(tiny.inputs()))
    assert counters["stats"].get("unique_graphs", 0) == 0


@some_models("own_add")
def test_compiling_after_remove_is_refused(tiny: TinyModel) -> None:
    rdp = ResidualDropPath(tiny.build(), 0.5)
    rdp.remove()
    with pytest.raises(RuntimeError, match="after `remove"):
        rdp.compile()
