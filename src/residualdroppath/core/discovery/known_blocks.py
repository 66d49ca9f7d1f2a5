"""Blocks of well-known libraries that tracing cannot take apart, each with the reason.

The names of their classes are given as text: nothing here imports those libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from .registry import register_block

Add = Callable[..., Tensor]


def _twins_pos_conv(block: Any, add: Add, x: Tensor, size: tuple[int, int]) -> Tensor:
    # Why: its forward unpacks `size`, of unknown length while tracing.
    rows, _, channels = x.shape
    features = x.transpose(1, 2).view(rows, channels, *size)
    summed = add("proj", features, block.proj, features) if block.stride == 1 else block.proj(features)
    return summed.flatten(2).transpose(1, 2)


register_block(
    "timm.models.twins.PosConv",
    _twins_pos_conv,
    lambda block: {"proj": ["proj"]} if block.stride == 1 else {},
)


def _mvit_multi_scale_block(block: Any, add: Add, x: Tensor, feat_size: list[int]) -> tuple[Tensor, list[int]]:
    # Why: the attention also returns the size after its pooling, which the next block needs when it is dropped too.
    projects = block.shortcut_proj_attn is not None
    base = block.norm1(x) if projects else x
    shortcut = block._shortcut_pool(block.shortcut_proj_attn(base) if projects else x, feat_size)
    x = add("attn", shortcut, lambda x: block.attn(x if projects else block.norm1(x), feat_size)[0], base)
    pool = block.shortcut_pool_attn
    new_size = list(feat_size)
    if pool is not None:
        settings = zip(feat_size, pool.padding, pool.kernel_size, pool.stride, strict=True)
        new_size = [(length + 2 * padding - kernel) // stride + 1 for length, padding, kernel, stride in settings]
    if block.shortcut_proj_mlp is None:
        return add("mlp", x, lambda x: block.mlp(block.norm2(x)), x), new_size
    base = block.norm2(x)
    return add("mlp", block.shortcut_proj_mlp(base), block.mlp, base), new_size


register_block(
    "timm.models.mvitv2.MultiScaleBlock",
    _mvit_multi_scale_block,
    lambda block: {
        "attn": ["attn", "drop_path1"] if block.shortcut_proj_attn is not None else ["norm1", "attn", "drop_path1"],
        "mlp": ["mlp", "drop_path2"] if block.shortcut_proj_mlp is not None else ["norm2", "mlp", "drop_path2"],
    },
)


def _rexnet_linear_bottleneck(block: Any, add: Add, x: Tensor) -> Tensor:
    # Why: the shortcut is added to the first channels only; dropped, the others are zero (as under timm's drop path).
    def branch(x: Tensor) -> Tensor:
        for layer in (block.conv_exp, block.conv_dw, block.se, block.act_dw, block.conv_pwl, block.drop_path):
            x = x if layer is None else layer(x)
        return x

    if not block.use_shortcut:
        return branch(x)
    more_channels = block.out_channels - block.in_channels
    return add("conv", F.pad(x, (0, 0, 0, 0, 0, more_channels)), branch, x)


register_block(
    "timm.models.rexnet.LinearBottleneck",
    _rexnet_linear_bottleneck,
    lambda block: {"conv": [name for name, _ in block.named_children()]} if block.use_shortcut else {},
)


def _swin_layer(
    block: Any,
    add: Add,
    hidden_states: Tensor,
    input_dimensions: tuple[int, int],
    always_partition: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    # Why: its forward sets attributes of the layer by the size of the image.
    from importlib import import_module

    module = import_module(type(block).__module__)
    height, width = input_dimensions
    window = block.window_size
    weights = None

    def attend(x: Tensor) -> Tensor:
        nonlocal weights
        rows, _, channels = x.shape
        x, _ = block.maybe_pad(block.layernorm_before(x).view(rows, height, width, channels), height, width)
        _, padded_height, padded_width, _ = x.shape
        windows = module.window_partition(block.cyclic_shift(x), window).view(-1, window * window, channels)
        mask = block.get_attn_mask(padded_height, padded_width, dtype=x.dtype, device=x.device)
        attended, weights = block.attention(windows, mask, **kwargs)
        attended = block.dropout(attended).view(-1, window, window, channels)
        x = block.cyclic_shift(module.window_reverse(attended, window, padded_height, padded_width), reverse=True)
        return block.drop_path(x[:, :height, :width].reshape(rows, height * width, channels))

    if not always_partition:
        block.set_shift_and_window_size(input_dimensions)
        window = block.window_size
    hidden_states = add("attention", hidden_states, attend, hidden_states)
    mlp = lambda x: block.dropout(block.mlp(block.layernorm_after(x)))  # noqa: E731
    return add("mlp", hidden_states, mlp, hidden_states), weights


register_block(
    "transformers.models.swin.modeling_swin.SwinLayer",
    _swin_layer,
    {"attention": ["layernorm_before", "attention", "drop_path"], "mlp": ["layernorm_after", "mlp"]},
)


def _t5_attention(
    block: Any,
    add: Add,
    hidden_states: Tensor,
    key_value_states: Tensor | None = None,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    # Why: the attention of the first layer makes the position bias that all others use.
    (name,) = (name for name in T5_ATTENTIONS if hasattr(block, name))
    attention = getattr(block, name)
    if position_bias is None and attention.has_relative_attention_bias:
        length = hidden_states.shape[1]
        seen = past_key_values.get_seq_length(attention.layer_idx) if past_key_values is not None else 0
        position_bias = attention.compute_bias(length, seen + length, hidden_states.device, seen)
    returned = [position_bias, None]

    def attend(x: Tensor, *_: Tensor) -> Tensor:
        attended, *returned[:] = attention(
            block.layer_norm(x),
            mask=attention_mask,
            key_value_states=key_value_states,
            position_bias=position_bias,
            past_key_values=past_key_values,
            **kwargs,
        )
        return block.dropout(attended)

    read = [value for value in (key_value_states, attention_mask, position_bias) if value is not None]
    return add(name, hidden_states, attend, hidden_states, *read), *returned


T5_ATTENTIONS = ("SelfAttention", "EncDecAttention")

# By module, what the names of its classes begin with: models that have the code of T5's layers.
T5_AND_COPIES = {
    "t5": "T5",
    "mt5": "MT5",
    "longt5": "LongT5",
    "pop2piano": "Pop2Piano",
    "switch_transformers": "SwitchTransformers",
    "udop": "Udop",
}

for _module, _prefix in T5_AND_COPIES.items():
    for _layer in ("LayerSelfAttention", "LayerCrossAttention"):
        register_block(
            f"transformers.models.{_module}.modeling_{_module}.{_prefix}{_layer}",
            _t5_attention,
            lambda block: {
                name: ["layer_norm", *(f"{name}.{projection}" for projection in "qkvo")]
                for name in T5_ATTENTIONS
                if hasattr(block, name)
            },
        )


def _mask(mask: Tensor | None, name: str, x: Tensor, other: Tensor | None = None) -> Tensor | None:
    return F._canonical_mask(mask, name, F._none_or_dtype(other), "", x.dtype, check_other=other is not None)


def _torch_encoder_layer(
    block: Any,
    add: Add,
    src: Tensor,
    src_mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    # Why: with a mask, its forward looks at the dtype and the type of the mask.
    padding = _mask(src_key_padding_mask, "src_key_padding_mask", src, src_mask)
    mask = _mask(src_mask, "src_mask", src)
    first, second = (block.norm1, block.norm2) if block.norm_first else (_unchanged, _unchanged)
    attend = lambda x, *_: block._sa_block(first(x), mask, padding, is_causal=is_causal)  # noqa: E731
    x = add("self_attn", src, attend, src, *(m for m in (mask, padding) if m is not None))
    x = x if block.norm_first else block.norm1(x)
    x = add("linear1", x, lambda x: block._ff_block(second(x)), x)
    return x if block.norm_first else block.norm2(x)


def _unchanged(x: Tensor) -> Tensor:
    return x


register_block(
    "torch.nn.modules.transformer.TransformerEncoderLayer",
    _torch_encoder_layer,
    lambda block: {
        "self_attn": ["self_attn", "norm1"] if block.norm_first else ["self_attn"],
        "linear1": ["linear1", "linear2", "norm2"] if block.norm_first else ["linear1", "linear2"],
    },
)
