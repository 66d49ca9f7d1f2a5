"""Blocks that cannot be traced, registered: they equal the same block written so that it can be."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from residualdroppath import NoResidualBranchError, ResidualDropPath, register_block
from residualdroppath.core.discovery import registry

from .stepping import assert_close, assert_equal, buffers_of, forward_backward, sgd_step
from .tiny_blocks import Stack, TwoAdds
from .tiny_models import TinyModel, two_of_three


class Untraceable(TwoAdds):
    """Reads a value in its forward."""

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().sum().item() < 0:
            raise ValueError("impossible")
        return super().forward(x)


def forward(block: Any, add: Any, x: Tensor) -> Tensor:
    x = add("attn", x, lambda x: block.attn(block.norm1(x)), x)
    return add("mlp", x, lambda x: block.mlp(block.norm2(x)), x)


BRANCHES = two_of_three(("norm1", "attn"), ("norm2", "mlp"), ("attn", "mlp"))
TRACED = TinyModel("traced", partial(Stack, TwoAdds), BRANCHES)
REGISTERED = TinyModel("registered", partial(Stack, Untraceable), BRANCHES)


@pytest.fixture(autouse=True)
def forget_registrations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    yield


@pytest.mark.usefixtures("factors_stay_outside")
@pytest.mark.parametrize(
    "options",
    [{}, {"freeze": "stop_gradient", "frozen_norm": "batch"}, {"freeze": "stop_gradient", "granularity": "sample"}],
    ids=str,
)
def test_a_registered_block_equals_the_traced_one(options: dict[str, Any]) -> None:
    with pytest.raises(NoResidualBranchError):
        ResidualDropPath(REGISTERED.build())
    register_block(Untraceable, forward, {"attn": ["norm1", "attn"], "mlp": ["norm2", "mlp"]})
    models = [REGISTERED.build(), TRACED.build()]
    rdps = [ResidualDropPath(model, 0.5, rate_over_depth="uniform", **options) for model in models]
    assert [b.name for b in rdps[0].branches] == list(BRANCHES)
    assert [b.num_parameters for b in rdps[0].branches] == [b.num_parameters for b in rdps[1].branches]
    for iteration in range(4):
        assert rdps[0].plan == rdps[1].plan
        actual, expected = (forward_backward(model, REGISTERED.inputs(seed=iteration)) for model in models)
        assert_close(actual.output, expected.output, "output")
        for name, gradient in expected.gradients.items():
            found = actual.gradients[name]
            assert (found is None) == (gradient is None), name
            if found is not None and gradient is not None:
                assert_close(found, gradient, name)
        assert_equal(buffers_of(models[0]), buffers_of(models[1]), "buffers")
        for model, rdp in zip(models, rdps, strict=True):
            sgd_step(model)
            rdp.step()
    assert_equal(models[0].eval()(REGISTERED.inputs()), models[1].eval()(REGISTERED.inputs()), "output")


class OneBranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(6, 6)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum().item() == 0:
            return x
        return self.act(x + self.f(x))


def test_a_registered_block_with_one_branch_is_named_after_the_block() -> None:
    register_block(OneBranch, lambda b, add, x: b.act(add("f", x, b.f, x)), {"f": ["f"]})
    model = Stack(OneBranch)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    assert [branch.name for branch in rdp.branches] == ["blocks.0", "blocks.1", "blocks.2"]
    calls: list[str] = []
    for name, block in model.blocks.named_children():
        block.get_submodule("f").register_forward_hook(lambda *_, name=name: calls.append(f"blocks.{name}"))
    inputs = torch.randn(4, 5)
    forward_backward(model, inputs)
    assert tuple(calls) == rdp.plan.kept and rdp.plan.dropped


def test_what_is_registered_wins_over_tracing() -> None:
    register_block(TwoAdds, forward, {"mlp": ["norm2", "mlp"]})
    assert [b.name for b in ResidualDropPath(Stack(TwoAdds)).branches] == ["blocks.0", "blocks.1", "blocks.2"]


def test_subclasses_are_not_included() -> None:
    register_block(TwoAdds, forward, {"attn": ["norm1", "attn"], "mlp": ["norm2", "mlp"]})
    with pytest.raises(NoResidualBranchError):
        ResidualDropPath(Stack(Untraceable))


def test_errors_say_what_to_pass() -> None:
    with pytest.raises(
        TypeError, match="`block_class` must be a subclass of torch.nn.Module, got Linear.*class itself"
    ):
        register_block(nn.Linear(1, 1), forward, {"f": ["f"]})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`branches` must name at least one branch"):
        register_block(TwoAdds, forward, {})
