"""The formulas of DESIGN.md section 1 typed by hand, without tracing: what runs fast equals them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from residualdroppath import ResidualDropPath

from .stepping import assert_close, forward_backward, loss_of, sgd_step
from .tiny_blocks import PostActivationIdentity, TwoAdds
from .tiny_models import BY_NAME

Gate = Callable[[str, Tensor], Tensor]  # the name of a branch and its output to what is added


def post_activation(model: Any, x: Tensor, gate: Gate) -> Tensor:
    x = model.stem(x)
    for index, block in enumerate(model.blocks):
        assert isinstance(block, PostActivationIdentity)
        x = torch.relu(x + gate(f"blocks.{index}", block.bn(block.fc(x))))
    return model.head(x)


def two_adds(model: Any, x: Tensor, gate: Gate) -> Tensor:
    x = model.stem(x)
    for index, block in enumerate(model.blocks):
        assert isinstance(block, TwoAdds)
        x = x + gate(f"blocks.{index}.attn", block.attn(block.norm1(x)))
        x = x + gate(f"blocks.{index}.mlp", block.mlp(block.norm2(x)))
    return model.head(x)


def masks_of(rdp: ResidualDropPath, rows: int) -> dict[str, Tensor]:
    """By branch, 1 where a row drops it, float64[rows, 1]."""
    names = [branch.name for branch in rdp.branches]
    if rdp.options.granularity == "sample":
        mask = rdp.plan.mask(rows).double()
    else:
        mask = torch.tensor([[float(name in rdp.plan.dropped)] * rows for name in names], dtype=torch.float64)
    return {name: mask[index, :, None] for index, name in enumerate(names)}


def gate_of(rdp: ResidualDropPath, rows: int) -> Gate:
    masks = masks_of(rdp, rows)

    def drop_path(name: str, branch: Tensor) -> Tensor:
        if bool(masks[name].all()):
            return torch.zeros_like(branch)
        keep_prob = 1 - dict(zip(masks, rdp.plan.drop_rates, strict=True))[name]
        return (1 - masks[name]) * branch / keep_prob

    def dropped_part(name: str, branch: Tensor) -> Tensor:
        if rdp.options.freeze == "parameters":
            return branch
        return masks[name] * branch + (1 - masks[name]) * branch.detach()

    return drop_path if rdp.kind == "drop_path" else dropped_part


@pytest.mark.parametrize(("name", "by_hand"), [("post_activation_identity", post_activation), ("two_adds", two_adds)])
@pytest.mark.parametrize(
    "options",
    [{}, {"freeze": "stop_gradient"}, {"freeze": "stop_gradient", "granularity": "sample"}],
    ids=["parameters", "stop_gradient", "sample"],
)
def test_equals_the_formula(name: str, by_hand: Callable[..., Tensor], options: dict[str, Any]) -> None:
    tiny = BY_NAME[name]
    model = tiny.build()
    rdp = ResidualDropPath(model, drop_path_rate=0.5, rate_over_depth="uniform", **options)
    for _ in range(6):
        twin = tiny.build()
        twin.load_state_dict(model.state_dict())
        rows = 5
        inputs = tiny.inputs(seed=rdp.iteration, rows=rows)
        fast = forward_backward(model, inputs)
        output = by_hand(twin, inputs, gate_of(rdp, rows))
        loss_of(output).backward()

        assert_close(fast.output, output.detach(), "output")
        masks = masks_of(rdp, rows)
        for (parameter, owner), expected in zip(tiny.owners(model).items(), twin.parameters(), strict=True):
            if owner == "trunk":
                learns = rdp.kind == "drop_path"
            else:
                learns = not masks[owner].all() if rdp.kind == "drop_path" else masks[owner].any()
            gradient = fast.gradients[parameter]
            assert (gradient is not None) == bool(learns), parameter
            if gradient is not None:
                assert expected.grad is not None
                assert_close(gradient, expected.grad, parameter)
        sgd_step(model)
        rdp.step()
