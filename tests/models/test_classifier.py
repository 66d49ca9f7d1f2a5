"""Image classifiers by name, and what is said about names and sizes that do not go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from residualdroppath.errors import UserError
from residualdroppath.models.classifier import NoOwnDropPathError, make_classifier
from residualdroppath.models.hugging_face import classifier_options
from residualdroppath.models.small_resnet import SmallResNet

DIGITS: dict[str, Any] = {"in_channels": 1, "num_classes": 10, "image_size": 8}
SMALL: dict[str, Any] = {"in_channels": 1, "num_classes": 7, "image_size": 32}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def made(name: str, **options: Any) -> nn.Module:
    return make_classifier(name, **options).model


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def drop_rates(model: nn.Module) -> list[float]:
    """Of the library's own drop path."""
    kinds = ("StochasticDepth", "DropPath")
    found = [module for module in model.modules() if type(module).__name__.endswith(kinds)]
    return [rate for module in found for name, rate in vars(module).items() if name in ("p", "drop_prob")]


def test_small_resnet_takes_depth_and_width() -> None:
    model = made("small_resnet", **DIGITS, depth=14, width=3)
    assert isinstance(model, SmallResNet) and len(model.blocks) == 6 and model.head.in_features == 12


@pytest.mark.parametrize(("wrong", "named"), [({"depth": 9}, "`depth`"), ({"width": 0}, "`width`")])
def test_small_resnet_that_cannot_be(wrong: dict[str, int], named: str) -> None:
    with pytest.raises(UserError) as error:
        made("small_resnet", **DIGITS, **wrong)
    assert one_line(error).startswith(f"{named} must be ")


@pytest.mark.parametrize(("wrong", "close"), [("small_resnt", "small_resnet"), ("resnet5", "resnet50")])
def test_unknown_name_comes_with_close_ones(wrong: str, close: str) -> None:
    with pytest.raises(UserError, match="did you mean") as error:
        made(wrong, **DIGITS)
    assert close in one_line(error) and repr(wrong) in one_line(error)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "must be small_resnet or a timm model"),
        ("!!!", "must be small_resnet or a timm model"),
        ("hf_hub:timm/resnet18.a1_in1k", "must be NAME or timm/NAME, torchvision/NAME or transformers/CLASS"),
        ("/resnet18", "must be NAME or timm/NAME, torchvision/NAME or transformers/CLASS"),
    ],
)
def test_unknown_name_without_a_close_one(name: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        made(name, **DIGITS)
    assert "did you mean" not in one_line(error)


@pytest.mark.parametrize("name", ["resnet10t", "timm/resnet10t"])
def test_timm_model_of_any_size_is_made_as_timm_makes_it(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    ours = made(name, **DIGITS)
    torch.manual_seed(0)
    theirs = timm.create_model("resnet10t", in_chans=1, num_classes=10)
    assert ours.training
    for (key, value), (other, expected) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert key == other and torch.equal(value, expected)


def test_timm_model_of_one_size_is_made_for_the_images() -> None:
    model = made("vit_tiny_patch16_224", in_channels=1, num_classes=10, image_size=32)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    positions = model.get_parameter("pos_embed")
    assert positions.shape[1] == 1 + (32 // 16) ** 2


def test_network_that_runs_out_of_pixels_is_refused() -> None:
    with pytest.raises(UserError, match="densenet121 does not take 8x8 images") as error:
        made("densenet121", **DIGITS)
    assert "image_size" in one_line(error)


def test_torchvision_model_is_made_as_torchvision_makes_it() -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    ours = make_classifier("torchvision/resnet18", **SMALL)
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=7)
    assert ours.channels == 3 and ours.model.training
    assert ours.model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    theirs.train()(torch.zeros(2, 3, 32, 32))
    for (key, value), (other, expected) in zip(
        ours.model.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert key == other and torch.equal(value, expected)


def test_torchvision_model_of_one_size_is_made_for_the_images() -> None:
    model = made("torchvision/vit_b_16", **SMALL)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_heads_that_only_train_are_left_out_of_the_logits() -> None:
    """In training torchvision's GoogLeNet returns three logits."""
    model = made("torchvision/googlenet", **{**SMALL, "image_size": 64})
    assert model.training and model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_logits_of_transformers_are_unwrapped() -> None:
    pytest.importorskip("transformers")
    classifier = make_classifier("transformers/ResNetForImageClassification", **SMALL)
    assert classifier.channels == 1 and classifier.model.training
    assert classifier.model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_drop_path_of_the_library_is_off_unless_it_is_asked_for() -> None:
    name = "torchvision/convnext_tiny"
    assert set(drop_rates(made(name, **SMALL))) == {0.0}
    assert max(drop_rates(made(name, **SMALL, own_drop_path_rate=0.3))) == pytest.approx(0.3)
    assert not drop_rates(made("resnet10t", **SMALL))
    assert max(drop_rates(made("resnet10t", **SMALL, own_drop_path_rate=0.3))) == pytest.approx(0.3)


def test_options_of_the_model() -> None:
    model: Any = made("vit_tiny_patch16_224", **SMALL, model_options={"patch_size": 8, "embed_dim": 24, "depth": 2})
    assert len(model.blocks) == 2 and model.patch_embed.proj.weight.shape == (24, 1, 8, 8)
    for option in ("num_classes", "drop_path_rate"):
        with pytest.raises(UserError, match=f"must not hold '{option}'"):
            made("vit_tiny_patch16_224", **SMALL, model_options={option: 1})
    with pytest.raises(UserError, match="cannot be made.*patches"):
        made("vit_tiny_patch16_224", **SMALL, model_options={"patches": 1})


def test_drop_path_of_transformers_is_off() -> None:
    pytest.importorskip("transformers")
    expected = {"num_labels": 7, "num_channels": 1, "drop_path_rate": 0.0}  # 0.1 by default
    assert classifier_options("SwinForImageClassification", 1, 7) == (expected, 1)
    assert classifier_options("CLIPForImageClassification", 1, 7) == ({"num_labels": 7}, 3)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("small_resnet", "drop path of its own"),
        ("vgg11", "drop_path_rate"),
        ("torchvision/resnet18", "stochastic_depth_prob"),
    ],
)
def test_drop_path_of_a_library_that_has_none(name: str, told: str) -> None:
    with pytest.raises(NoOwnDropPathError, match=told):
        made(name, **SMALL, own_drop_path_rate=0.1)


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "timm/resnet18.a1_in1k", "resnet18.of_nobody"])
def test_pretrained_weights_are_not_taken_for_random_ones(name: str) -> None:
    with pytest.raises(UserError) as error:
        made(name, **SMALL)
    plain, tag = name.split(".")
    assert f"names pretrained weights ({tag}), and weights start random; add `pretrained`" in one_line(error)
    assert one_line(error).endswith(f"name the network alone, {plain}.")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("transformers/BertModel", "does not classify images, it takes input_ids"),
        ("transformers/ViTModel", r"must return logits \[images, 7\], got BaseModelOutput"),
        ("transformers/SegformerForSemanticSegmentation", r"got \[1, 7, 8, 8\]"),
        ("torchvision/fcn_resnet50", "got OrderedDict"),
        ("torchvision/r3d_18", "does not take 32x32 images"),
        ("torchvision/raft_small", "cannot be made for 32x32 images: .*num_classes"),
        ("torchvision/vit_b_16", "cannot be made for 30x30 images"),
        ("vit_tiny_patch16_224", "does not take 8x8 images"),
    ],
)
def test_what_is_no_classifier_of_such_images(name: str, told: str) -> None:
    if name.startswith("transformers/"):
        pytest.importorskip("transformers")
    size = {"torchvision/vit_b_16": 30, "vit_tiny_patch16_224": 8}.get(name, 32)
    with pytest.raises(UserError, match=told) as error:
        made(name, **{**SMALL, "image_size": size})
    assert name in one_line(error)


def test_channels_that_the_network_does_not_take() -> None:
    with pytest.raises(UserError, match="takes images of 3 channels, got 4"):
        made("torchvision/resnet18", **{**SMALL, "in_channels": 4})
