"""The table of tiny models, each with its residual branches and their parameters written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock as TorchvisionBasicBlock
from torchvision.models.resnet import ResNet as TorchvisionResNet

from contracts.by_hand import TRUNK, Gate
from contracts.comparing import Inputs
from contracts.subject import Subject

from . import tiny_blocks as blocks
from .tiny_blocks import ListStack, MaskedStack, Stack

BUILT: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # by model, the name of its row
Branches = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class TinyModel:
    """`branches`: by name, in order of execution, the modules and parameters that belong to the branch."""

    name: str
    make: Callable[[], nn.Module]
    branches: Branches
    input_shape: tuple[int, ...] = (5,)
    draws_random_numbers: bool = False  # dropout in a branch
    formula: Callable[[Any, Inputs, Gate], Tensor] | None = None  # the forward by hand

    def build(self) -> nn.Module:
        """The model in float64 and training mode, the same at every call."""
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            model = self.make().double()
            # Libraries set the last norm or layer scale of a branch to zero: then nothing would be tested.
            for parameter in model.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
        BUILT[model] = self.name
        return model.train()

    def inputs(self, seed: int = 0, rows: int = 5) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(rows, *self.input_shape, dtype=torch.float64, generator=generator)

    def owners(self, model: nn.Module) -> dict[str, str]:
        """By the name of each parameter its branch, or `TRUNK`."""
        owner_of = {name: TRUNK for name, _ in model.named_parameters()}
        for branch, members in self.branches.items():
            for name in owner_of:
                if any(name == member or name.startswith(f"{member}.") for member in members):
                    owner_of[name] = branch
        return owner_of

    def subject(self, rows: Callable[[int], int] = lambda seed: 5) -> Subject:
        """To be held to the contracts on batches of `rows` rows, by seed; the plain network is built once."""
        owners = self.owners(plain := _plain(self.name))
        subject = Subject(
            build=self.build,
            inputs=lambda seed: {"x": self.inputs(seed, rows(seed))},
            branches={branch: {name for name, owner in owners.items() if owner == branch} for branch in self.branches},
            formula=self.formula,
        )
        subject.plain = plain
        return subject


@cache
def _plain(name: str) -> nn.Module:
    return BY_NAME[name].build()


def members(block: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{block}.{name}" for name in names)


def of_three(*names: str, under: str = "blocks") -> Branches:
    """Three blocks with one branch each."""
    return {f"{under}.{index}": members(f"{under}.{index}", *names) for index in range(3)}


def two_of_three(first: tuple[str, ...], second: tuple[str, ...], suffixes: tuple[str, str]) -> Branches:
    """Three blocks with two branches each."""
    return {
        f"blocks.{index}.{suffix}": members(f"blocks.{index}", *names)
        for index in range(3)
        for suffix, names in zip(suffixes, (first, second), strict=True)
    }


def resnet(**options) -> nn.Module:
    return ResNet(layers=(1, 1, 1, 1), channels=(8, 8, 16, 16), num_classes=3, **options)


def resnet_branches(*names: str) -> Branches:
    return {f"layer{stage}.0": members(f"layer{stage}.0", *names) for stage in (1, 2, 3, 4)}


def torchvision_resnet() -> nn.Module:
    model = TorchvisionResNet(TorchvisionBasicBlock, [2, 1, 1, 1])
    model.layer3 = model.layer4 = nn.Sequential()
    model.fc = nn.Linear(128, 3)
    return model


def two_adds_by_hand(model: Any, inputs: Inputs, gate: Gate) -> Tensor:
    x = model.stem(inputs["x"])
    for index, block in enumerate(model.blocks):
        x = x + gate(f"blocks.{index}.attn", partial(lambda block, x: block.attn(block.norm1(x)), block, x))
        x = x + gate(f"blocks.{index}.mlp", partial(lambda block, x: block.mlp(block.norm2(x)), block, x))
    return model.head(x)


def post_activation_by_hand(model: Any, inputs: Inputs, gate: Gate) -> Tensor:
    x = model.stem(inputs["x"])
    for index, block in enumerate(model.blocks):
        x = block.act(x + gate(f"blocks.{index}", partial(lambda block, x: block.bn(block.fc(x)), block, x)))
    return model.head(x)


TWO_CONVS = ("conv1", "bn1", "conv2", "bn2")
THREE_CONVS = (*TWO_CONVS, "conv3", "bn3")

HAND_WRITTEN = [
    TinyModel("own_add", partial(Stack, blocks.OwnAdd), of_three("branch")),
    TinyModel("module_list", partial(ListStack, blocks.OwnAdd), of_three("branch", under="layers")),
    TinyModel("inplace_add", partial(Stack, blocks.InplaceAdd), of_three("branch")),
    TinyModel("torch_add", partial(Stack, blocks.TorchAdd), of_three("branch")),
    TinyModel(
        "two_adds",
        partial(Stack, blocks.TwoAdds),
        two_of_three(("norm1", "attn"), ("norm2", "mlp"), ("attn", "mlp")),
        formula=two_adds_by_hand,
    ),
    TinyModel("layer_scale", partial(Stack, blocks.LayerScale), of_three("gamma", "f")),
    TinyModel("parallel_as_one", partial(Stack, blocks.ParallelAsOne), of_three("a", "b")),
    TinyModel("parallel_as_two", partial(Stack, blocks.ParallelAsTwo), two_of_three(("a",), ("b",), ("a", "b"))),
    TinyModel("pre_activation", partial(Stack, blocks.PreActivation), of_three("norm1", "fc1", "norm2", "fc2")),
    TinyModel("post_activation", partial(Stack, blocks.PostActivation), of_three("fc", "bn")),
    TinyModel(
        "post_activation_identity",
        partial(Stack, blocks.PostActivationIdentity),
        of_three("fc", "bn"),
        formula=post_activation_by_hand,
    ),
    TinyModel("projection", partial(Stack, blocks.Projection), of_three("fc1", "fc2")),
    TinyModel("dropout", partial(Stack, blocks.DropoutInside), of_three("fc1", "fc2"), draws_random_numbers=True),
    TinyModel("optional_mask", partial(MaskedStack, blocks.OptionalMask), of_three("f", under="layers")),
]

FROM_LIBRARIES = [
    TinyModel("timm_basic", partial(resnet, block=BasicBlock), resnet_branches(*TWO_CONVS), (3, 16, 16)),
    TinyModel(
        "timm_bottleneck_d",  # the form of resnet26d and resnet50d
        partial(resnet, block=Bottleneck, stem_type="deep", stem_width=4, avg_down=True),
        resnet_branches(*THREE_CONVS),
        (3, 16, 16),
    ),
    TinyModel(
        "timm_seresnet",
        partial(resnet, block=BasicBlock, block_args={"attn_layer": "se"}),
        resnet_branches(*TWO_CONVS, "se"),
        (3, 16, 16),
    ),
    TinyModel(
        "timm_resnext",
        partial(resnet, block=Bottleneck, cardinality=2, base_width=16),
        resnet_branches(*THREE_CONVS),
        (3, 16, 16),
    ),
    TinyModel(
        "torchvision_resnet",
        torchvision_resnet,
        {name: members(name, *TWO_CONVS) for name in ("layer1.0", "layer1.1", "layer2.0")},
        (3, 16, 16),
    ),
    TinyModel(
        "timm_vit",
        partial(VisionTransformer, img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3),
        {
            "blocks.0.attn": ("blocks.0.norm1", "blocks.0.attn"),
            "blocks.0.mlp": ("blocks.0.norm2", "blocks.0.mlp"),
            "blocks.1.attn": ("blocks.1.norm1", "blocks.1.attn"),
            "blocks.1.mlp": ("blocks.1.norm2", "blocks.1.mlp"),
        },
        (3, 16, 16),
    ),
    TinyModel(
        "timm_vit_dropout",
        partial(
            VisionTransformer, img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3,
            init_values=0.5, pos_drop_rate=0.2, proj_drop_rate=0.3, global_pool="avg",
        ),
        {
            "blocks.0.attn": members("blocks.0", "norm1", "attn", "ls1"),
            "blocks.0.mlp": members("blocks.0", "norm2", "mlp", "ls2"),
            "blocks.1.attn": members("blocks.1", "norm1", "attn", "ls1"),
            "blocks.1.mlp": members("blocks.1", "norm2", "mlp", "ls2"),
        },
        (3, 16, 16),
        draws_random_numbers=True,
    ),
    TinyModel(
        "timm_convnext",
        partial(ConvNeXt, depths=(1, 1, 1, 1), dims=(6, 8, 8, 8), patch_size=2, num_classes=3, kernel_sizes=3),
        {
            f"stages.{stage}.blocks.0": members(f"stages.{stage}.blocks.0", "conv_dw", "norm", "mlp", "gamma")
            for stage in range(4)
        },
        (3, 32, 32),
    ),
]  # fmt: skip

TABLE = HAND_WRITTEN + FROM_LIBRARIES
BY_NAME = {model.name: model for model in TABLE}

every_model = pytest.mark.parametrize("tiny", TABLE, ids=lambda tiny: tiny.name)


def some_models(*names: str, full: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """These models, and in the full tier those of `full` too."""
    parameters = [pytest.param(BY_NAME[name], id=name) for name in names]
    parameters += [pytest.param(BY_NAME[name], id=name, marks=pytest.mark.full) for name in full]
    return pytest.mark.parametrize("tiny", parameters)


def every_model_in_full_but(*names: str) -> pytest.MarkDecorator:
    """These models by default, all others in the full tier."""
    return some_models(*names, full=tuple(name for name in BY_NAME if name not in names))
