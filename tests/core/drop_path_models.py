"""Networks of the libraries with drop path of their own, and the rates that their sources give them.

They live on the meta device, where parameters cost nothing; their forwards can be traced all the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from timm.layers.drop import calculate_drop_path_rates
from torch import nn

Rates = dict[str, float]  # by path or name, in order of execution


@dataclass(frozen=True)
class DropPathModel:
    """`own`: the rates that are on, by path and attribute. `branches`: those of all branches."""

    name: str
    make: Callable[[], nn.Module]
    own: Rates
    branches: Rates

    @functools.cached_property
    def model(self) -> nn.Module:
        """In training mode; tests leave it as it is."""
        with torch.device("meta"):
            return self.make().train()


def blocks(pattern: str, depths: Sequence[int], rates: Sequence[float]) -> Rates:
    """Rates of blocks whose paths hold the numbers of their stage and of the block in it."""
    paths = [pattern.format(stage=s, block=b) for s, depth in enumerate(depths) for b in range(depth)]
    return dict(zip(paths, rates, strict=True))


def each(of_blocks: Rates, *names: str) -> Rates:
    """Children or branches of blocks, with the rates of their blocks."""
    return {f"{path}.{name}" if name else path: rate for path, rate in of_blocks.items() for name in names}


def on(rates: Rates) -> Rates:
    """Without those that are 0, in whose place the libraries put `nn.Identity`."""
    return {path: rate for path, rate in rates.items() if rate > 0}


def linear(num_blocks: int, rate: float = 0.2) -> list[float]:
    return [rate * i / (num_blocks - 1) for i in range(num_blocks)]


def timm_rates(num_blocks: int) -> list[float]:
    rates = calculate_drop_path_rates(0.2, num_blocks)
    return [rate for rate in rates if isinstance(rate, float)]


def from_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=2, drop_path_rate=0.2, **options)


def from_transformers(name: str, **options: Any) -> Callable[[], nn.Module]:
    config, model = getattr(transformers, f"{name}Config"), getattr(transformers, f"{name}Model")
    return lambda: model(config(**options))


# torchvision/models/efficientnet.py and timm/models/_efficientnet_builder.py: 0.2 * block / 16. The first block of each
# stage has no shortcut, so its drop path never runs.
EFFICIENTNET_B0 = (1, 2, 2, 3, 3, 4, 1), [0.2 * i / 16 for i in range(16)]
TORCHVISION_EFFICIENTNET = blocks("features.{stage}.{block}", (0, *EFFICIENTNET_B0[0]), EFFICIENTNET_B0[1])
TIMM_EFFICIENTNET = blocks("blocks.{stage}.{block}", *EFFICIENTNET_B0)
# torchvision/models/{swin_transformer,convnext}.py: stages alternate with down-sampling.
SWIN_T = blocks("features.{stage}.{block}", (0, 2, 0, 2, 0, 6, 0, 2), linear(12))
CONVNEXT_T = blocks("features.{stage}.{block}", (0, 3, 0, 3, 0, 9, 0, 3), linear(18, 0.1))
TIMM_VIT = blocks("blocks.{block}", [3], timm_rates(3))
TIMM_SWIN = blocks("layers.{stage}.blocks.{block}", (2, 1, 1), timm_rates(4))
TIMM_CONVNEXT = blocks("stages.{stage}.blocks.{block}", (1, 1, 2, 1), timm_rates(5))
MIXER = blocks("blocks.{block}", [8], [0.2] * 8)
PARALLEL_VIT = blocks("blocks.{block}", [2], [0, 0.2])
REXNET = blocks("features.{block}", [16], linear(16))
MVIT = blocks("stages.{stage}.blocks.{block}", (1, 2, 5, 2), timm_rates(10))
# transformers/models/*/modeling_*.py
BEIT = blocks("layers.{block}", [3], linear(3))
SEGFORMER = blocks("stages.{stage}.blocks.{block}", (1, 2), linear(3))
SWIN = blocks("encoder.layers.{stage}.blocks.{block}", (2, 2), linear(4))
POOLFORMER = blocks("encoder.block.{stage}.{block}", (1, 1, 1, 1), [0, 0.1, 0.2, 0.3])
BART = {"encoder.layers.{}": 0.1, "decoder.layers.{}": 0.25}
SPEECH = dict(
    hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, vocab_size=9, layerdrop=0.1,
    conv_dim=(8,), conv_stride=(5,), conv_kernel=(10,), num_conv_pos_embedding_groups=2,
)  # fmt: skip


def _bart() -> nn.Module:
    sizes = {
        f"{part}_{size}": 2 for part in ("encoder", "decoder") for size in ("layers", "attention_heads", "ffn_dim")
    }
    rates = {"encoder_layerdrop": 0.1, "decoder_layerdrop": 0.25}
    return from_transformers("Bart", vocab_size=9, d_model=8, max_position_embeddings=9, **sizes, **rates)()


def _levit() -> nn.Module:
    sizes = dict(hidden_sizes=[16, 32, 48], depths=[1, 1, 1], key_dim=[4, 4, 4], num_attention_heads=[1, 2, 3])
    model = from_transformers("Levit", image_size=64, **sizes)()  # its config takes no rate but 0 or 1
    for module in model.modules():
        if type(module).__name__ == "LevitResidualLayer":
            vars(module)["drop_rate"] = 0.3
    return model


LEVIT = {f"encoder.stages.{stage}.layers.{i}": 0.3 for stage in range(3) for i in (0, 1, 3) if (stage, i) != (2, 3)}

MODELS = [
    DropPathModel(
        "torchvision swin_t", torchvision.models.swin_t, on(each(SWIN_T, "stochastic_depth.p")),
        each(SWIN_T, "attn", "mlp"),
    ),
    DropPathModel(
        "torchvision efficientnet_b0", torchvision.models.efficientnet_b0,
        on(each(TORCHVISION_EFFICIENTNET, "stochastic_depth.p")),
        {path: rate for path, rate in TORCHVISION_EFFICIENTNET.items() if not path.endswith(".0")},
    ),
    DropPathModel(
        "torchvision convnext_tiny", torchvision.models.convnext_tiny, on(each(CONVNEXT_T, "stochastic_depth.p")),
        CONVNEXT_T,
    ),
    DropPathModel(
        "timm vit", from_timm("vit_tiny_patch16_224", depth=3),
        on(each(TIMM_VIT, "drop_path1.drop_prob", "drop_path2.drop_prob")), each(TIMM_VIT, "attn", "mlp"),
    ),
    DropPathModel(
        "timm swin", from_timm(
            "swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(2, 1, 1), num_heads=(1, 2, 2),
        ),
        on(each(TIMM_SWIN, "drop_path1.drop_prob", "drop_path2.drop_prob")), each(TIMM_SWIN, "attn", "mlp"),
    ),
    DropPathModel(
        "timm efficientnet_b0", from_timm("efficientnet_b0"), on(each(TIMM_EFFICIENTNET, "drop_path.drop_prob")),
        {path: rate for path, rate in TIMM_EFFICIENTNET.items() if not path.endswith(".0")},
    ),
    DropPathModel(
        "timm convnext", from_timm("convnext_atto", depths=(1, 1, 2, 1), dims=(4, 4, 4, 4)),
        on(each(TIMM_CONVNEXT, "drop_path.drop_prob")), TIMM_CONVNEXT,
    ),
    DropPathModel(  # one module for both adds
        "timm mixer", from_timm("mixer_s32_224"), each(MIXER, "drop_path.drop_prob"),
        each(MIXER, "mlp_tokens", "mlp_channels"),
    ),
    DropPathModel(  # two parts of each branch, with a module each
        "timm parallel vit", from_timm("vit_small_patch16_18x2_224", depth=2),
        on(each(PARALLEL_VIT, *(f"{part}.{i}.drop_path.drop_prob" for part in ("attns", "ffns") for i in range(2)))),
        each(PARALLEL_VIT, "attns.0", "ffns.0"),
    ),
    DropPathModel(  # registered; blocks that change the width have no shortcut
        "timm rexnet", from_timm("rexnet_100"), on(each(REXNET, "drop_path.drop_prob")),
        {f"features.{i}": REXNET[f"features.{i}"] for i in (2, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15)},
    ),
    DropPathModel(  # registered
        "timm mvitv2", from_timm("mvitv2_tiny"), on(each(MVIT, "drop_path1.drop_prob", "drop_path2.drop_prob")),
        each(MVIT, "attn", "mlp"),
    ),
    DropPathModel(
        "transformers beit", from_transformers(
            "Beit", image_size=16, patch_size=8, hidden_size=8, num_hidden_layers=3, num_attention_heads=2,
            intermediate_size=8, drop_path_rate=0.2,
        ),
        on(each(BEIT, "drop_path.drop_prob")), each(BEIT, "attention", "mlp"),
    ),
    DropPathModel(
        "transformers segformer", from_transformers(
            "Segformer", num_encoder_blocks=2, depths=[1, 2], sr_ratios=[2, 1], hidden_sizes=[8, 16],
            patch_sizes=[3, 3], strides=[2, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], drop_path_rate=0.2,
        ),
        on(each(SEGFORMER, "drop_path.drop_prob")), each(SEGFORMER, "attention", "mlp"),
    ),
    DropPathModel(  # registered; the MLP has none
        "transformers swin", from_transformers(
            "Swin", image_size=16, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=4,
            drop_path_rate=0.2,
        ),
        on(each(SWIN, "drop_path.drop_prob")),
        {name: rate if name.endswith("attention") else 0 for name, rate in each(SWIN, "attention", "mlp").items()},
    ),
    DropPathModel(  # the MLP runs the one of its own twice, and then that of the layer
        "transformers poolformer", from_transformers(
            "PoolFormer", depths=[1, 1, 1, 1], hidden_sizes=[4, 4, 4, 4], drop_path_rate=0.3,
        ),
        on(each(POOLFORMER, "output.drop.drop_prob", "drop_path.drop_prob")),
        {
            name: rate if name.endswith("norm") else 1 - (1 - rate) ** 3
            for name, rate in each(POOLFORMER, "before_norm", "output").items()
        },
    ),
    DropPathModel("transformers levit", _levit, each(LEVIT, "drop_rate"), LEVIT),
    DropPathModel(
        "transformers bart", _bart, {"encoder.layerdrop": 0.1, "decoder.layerdrop": 0.25},
        {
            **each(blocks("encoder.layers.{block}", [2], [0.1] * 2), "self_attn", "fc1"),
            **each(blocks("decoder.layers.{block}", [2], [0.25] * 2), "self_attn", "encoder_attn", "fc1"),
        },
    ),
    DropPathModel(  # the positions are added outside of the layers
        "transformers wav2vec2", from_transformers("Wav2Vec2", **SPEECH), {"encoder.layerdrop": 0.1},
        {"encoder": 0, **each(blocks("encoder.layers.{block}", [2], [0.1] * 2), "attention", "feed_forward")},
    ),
    DropPathModel(  # its first layer, whose attention makes the position bias of all, is never skipped
        "transformers wavlm", from_transformers("WavLM", **SPEECH), {"encoder.layerdrop": 0.1},
        {
            "encoder": 0,
            "encoder.layers.0.attention.gru_rel_pos_linear": 0,
            "encoder.layers.0.feed_forward": 0,
            "encoder.layers.1.attention": 0.1,
            "encoder.layers.1.feed_forward": 0.1,
        },
    ),
    DropPathModel("torchvision resnet18", torchvision.models.resnet18, {}, {}),
    DropPathModel("timm vit without", lambda: timm.create_model("vit_tiny_patch16_224", depth=2), {}, {}),
]  # fmt: skip

every_model = pytest.mark.parametrize("named", MODELS, ids=lambda model: model.name)
with_drop_path = pytest.mark.parametrize("named", [m for m in MODELS if m.own], ids=lambda model: model.name)
