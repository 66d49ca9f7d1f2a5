"""Branches that the user froze whole: nothing to train there, so they are never dropped."""

from __future__ import annotations

import pytest
import torch

from residualdroppath import ResidualDropPath
from residualdroppath.models.small_resnet import SmallResNet


def make(**options) -> tuple[SmallResNet, ResidualDropPath]:
    torch.manual_seed(0)
    model = SmallResNet(14, 2).double()
    for block in list(model.blocks.children())[:5]:
        block.requires_grad_(False)
    return model, ResidualDropPath(model, 0.2, rate_over_depth="uniform", **options)


@pytest.mark.parametrize("freeze", ["parameters", "stop_gradient"])
def test_every_iteration_has_something_to_train(freeze):
    model, rdp = make(freeze=freeze)
    for _ in range(12):
        model(torch.randn(3, 3, 8, 8).double()).sum().backward()
        assert all(
            parameter.grad is None for block in list(model.blocks.children())[:5] for parameter in block.parameters()
        )
        if rdp.kind == "dropped_part":
            assert rdp.plan.dropped == ("blocks.5",)
            assert all(parameter.grad is not None for parameter in rdp.branches[5].parameters())
        model.zero_grad()
        rdp.step()


def test_drop_path_alone_drops_them_too():
    _, rdp = make(schedule=(1, 0))
    assert [branch.drop_rate for branch in rdp.branches] == [0.2] * 6


def test_unfrozen_while_paused_they_are_dropped_again():
    model, rdp = make()
    assert [branch.drop_rate for branch in rdp.branches] == [0.0] * 5 + [0.2]
    with rdp.paused():
        model.requires_grad_(True)
    assert [branch.drop_rate for branch in rdp.branches] == [0.2] * 6


def test_all_frozen_but_the_head_is_plain():
    model = SmallResNet(8, 2)
    model.blocks.requires_grad_(False)
    rdp = ResidualDropPath(model, 0.2)
    for _ in range(4):
        assert rdp.kind == "drop_path" and rdp.plan.dropped == ()
        model(torch.randn(3, 3, 8, 8)).sum().backward()
        rdp.step()
