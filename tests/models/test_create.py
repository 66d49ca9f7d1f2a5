"""Networks by name, and what is said about names and sizes that do not go."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from residualdroppath.errors import UserError
from residualdroppath.models.create import create_model
from residualdroppath.models.small_resnet import SmallResNet

DIGITS: dict[str, Any] = {"in_channels": 1, "num_classes": 10, "image_size": 8}


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_small_resnet_takes_depth_and_width() -> None:
    model = create_model("small_resnet", **DIGITS, depth=14, width=3)
    assert isinstance(model, SmallResNet) and len(model.blocks) == 6 and model.head.in_features == 12


@pytest.mark.parametrize(("wrong", "named"), [({"depth": 9}, "`depth`"), ({"width": 0}, "`width`")])
def test_small_resnet_that_cannot_be(wrong: dict[str, int], named: str) -> None:
    with pytest.raises(UserError) as error:
        create_model("small_resnet", **DIGITS, **wrong)
    assert named in one_line(error)


@pytest.mark.parametrize(("wrong", "close"), [("small_resnt", "small_resnet"), ("resnet5", "resnet50")])
def test_unknown_name_comes_with_close_ones(wrong: str, close: str) -> None:
    with pytest.raises(UserError, match="did you mean") as error:
        create_model(wrong, **DIGITS)
    assert close in one_line(error) and repr(wrong) in one_line(error)


@pytest.mark.parametrize("name", ["", "!!!", "hf_hub:timm/resnet18.a1_in1k"])
def test_unknown_name_without_a_close_one(name: str) -> None:
    with pytest.raises(UserError, match="must be small_resnet or a timm model") as error:
        create_model(name, **DIGITS)
    assert "did you mean" not in one_line(error)


def test_timm_model_of_any_size_is_made_as_timm_makes_it() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    ours = create_model("resnet10t", **DIGITS)
    torch.manual_seed(0)
    theirs = timm.create_model("resnet10t", in_chans=1, num_classes=10)
    assert ours.training
    for (name, value), (other, expected) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert name == other and torch.equal(value, expected)


def test_timm_model_of_one_size_is_made_for_the_images() -> None:
    model = create_model("vit_tiny_patch16_224", in_channels=1, num_classes=10, image_size=32)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    positions = model.get_parameter("pos_embed")
    assert positions.shape[1] == 1 + (32 // 16) ** 2


def test_network_that_runs_out_of_pixels_is_refused() -> None:
    with pytest.raises(UserError, match="densenet121 does not take 8x8 images") as error:
        create_model("densenet121", **DIGITS)
    assert "image_size" in one_line(error)
