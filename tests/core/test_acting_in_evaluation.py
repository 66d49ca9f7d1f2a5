"""`acting(..., in_evaluation=True)`: measurements on the network as it answers, not as it trains."""

from __future__ import annotations

import torch
from torch import Tensor

from residualdroppath import ResidualDropPath
from residualdroppath.core.running.actions import drop
from residualdroppath.core.running.add_point import AddPoint

from .tiny_models import TinyModel, every_model


def as_written(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    return add_point.merge(shortcut, add_point.run(*inputs))


def times_zero(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    return add_point.merge(shortcut, add_point.run(*inputs) * 0.0)


@every_model
@torch.no_grad()
def test_every_branch_can_act_in_evaluation_and_only_when_told(tiny: TinyModel) -> None:
    model, inputs = tiny.build(), tiny.inputs()
    rdp = ResidualDropPath(model, 0.5)
    model.eval()
    plain, state = model(inputs), torch.random.get_rng_state()
    count = len(rdp.branches)
    with rdp.acting([as_written] * count, in_evaluation=True):
        torch.testing.assert_close(model(inputs), plain, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)  # dropout is off
    for index in range(count):
        only = [index == other for other in range(count)]
        with rdp.acting([drop if chosen else None for chosen in only], in_evaluation=True):
            without = model(inputs)
        with rdp.acting([times_zero if chosen else None for chosen in only], in_evaluation=True):
            torch.testing.assert_close(model(inputs), without)
        assert not torch.allclose(without, plain)
        with rdp.acting([drop if chosen else None for chosen in only]):
            assert torch.equal(model(inputs), plain)
    assert torch.equal(model(inputs), plain)
    rdp.remove()
