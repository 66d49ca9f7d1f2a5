"""Sums that are not residual: nothing is found in them, and beside true branches those alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residualdroppath import NoResidualBranchError
from residualdroppath.core.discovery.network_walk import discover
from residualdroppath.core.discovery.residual_rule import _Rule

from .finding import assert_branches, block, branches_of, made_of

CHANNELS = 4
Map = Tensor  # float[2, CHANNELS, 8, 8]


def conv(kernel: int = 3, inputs: int = CHANNELS, outputs: int = CHANNELS, **options: Any) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 * options.get("dilation", 1), **options)


def conv_bn(kernel: int = 3, **options: Any) -> nn.Module:
    return nn.Sequential(conv(kernel, bias=False, **options), nn.BatchNorm2d(CHANNELS))


def conv_bn_act(kernel: int = 3, **options: Any) -> nn.Module:
    return nn.Sequential(*conv_bn(kernel, **options).children(), nn.ReLU())


def separable(**options: Any) -> nn.Module:
    return nn.Sequential(conv(3, groups=CHANNELS, **options), conv(1), nn.BatchNorm2d(CHANNELS), nn.ReLU())


def two_convs() -> nn.Module:
    return nn.Sequential(conv(), nn.BatchNorm2d(CHANNELS), nn.ReLU(), conv())


def down() -> nn.Module:
    return nn.Sequential(conv(stride=2), nn.BatchNorm2d(CHANNELS), nn.ReLU(), conv())


def linear() -> nn.Module:
    return nn.Linear(CHANNELS, CHANNELS)


def mlp() -> nn.Module:
    return nn.Sequential(linear(), nn.ReLU(), linear())


def norm() -> nn.Module:
    return nn.BatchNorm2d(CHANNELS)


def scale() -> nn.Parameter:
    return nn.Parameter(torch.rand(CHANNELS, 1, 1))


def scalar() -> nn.Parameter:
    return nn.Parameter(torch.rand(1))


def several(count: int, make: Any) -> Any:
    return lambda: nn.ModuleList(make() for _ in range(count))


def tokens(x: Map) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


# --- re-parametrised layers: parallel convolutions and an identity that fold into one


@block(one=partial(conv_bn, 1), three=conv_bn)
def repvgg(m: Any, x: Map) -> Map:
    return F.relu(m.three(x) + m.one(x) + x)


@block(one=partial(conv_bn, 1), three=conv_bn)
def repvgg_identity_first(m: Any, x: Map) -> Map:
    return F.relu(x + m.one(x) + m.three(x))


@block(one=partial(conv_bn, 1), three=conv_bn)
def repvgg_identity_between(m: Any, x: Map) -> Map:
    return F.relu(m.one(x) + x + m.three(x))


@block(one=partial(conv_bn, 1), three=conv_bn)
def repvgg_bracketed(m: Any, x: Map) -> Map:
    return F.relu(x + (m.one(x) + m.three(x)))


@block(one=partial(conv_bn, 1), three=conv_bn)
def repvgg_in_place(m: Any, x: Map) -> Map:
    out = m.three(x)
    out += m.one(x)
    out += x
    return F.relu(out)


@block(one=partial(conv_bn, 1), three=conv_bn)
def repvgg_add_method(m: Any, x: Map) -> Map:
    return F.relu(m.three(x).add_(m.one(x)).add(x))


@block(one=partial(conv_bn, 1), three=conv_bn)
def repvgg_torch_add(m: Any, x: Map) -> Map:
    return F.relu(torch.add(torch.add(x, m.one(x)), m.three(x)))


@block(convs=several(3, conv_bn))
def repvgg_list_and_sum(m: Any, x: Map) -> Map:
    return F.relu(sum((conv(x) for conv in m.convs), start=x))


@block(one=partial(conv, 1), three=conv, norm1=norm, norm3=norm)
def repvgg_norms_of_their_own(m: Any, x: Map) -> Map:
    return F.relu(x + m.norm1(m.one(x)) + m.norm3(m.three(x)))


@block(one=partial(conv, 1), three=conv, norm0=norm, norm1=norm, norm3=norm)
def repvgg_norm_on_identity(m: Any, x: Map) -> Map:
    return F.relu(m.norm3(m.three(x)) + m.norm1(m.one(x)) + m.norm0(x))


@block(one=partial(conv_bn, 1), three=conv_bn, gamma=scale)
def repvgg_scaled_identity(m: Any, x: Map) -> Map:
    return F.relu(m.gamma * x + m.one(x) + m.three(x))


@block(one=partial(conv_bn, 1), three=conv_bn, gamma1=scale, gamma3=scale)
def repvgg_scaled_convolutions(m: Any, x: Map) -> Map:
    return F.relu(x + m.gamma1 * m.one(x) + m.gamma3 * m.three(x))


@block(one=partial(conv_bn, 1), three=conv_bn, norm=norm)
def repvgg_optional_identity(m: Any, x: Map) -> Map:
    out = 0 if m.norm is None else m.norm(x)
    return F.relu(m.three(x) + m.one(x) + out)


@block(one=partial(conv_bn, 1), three=conv_bn)
def repvgg_stacked_and_summed(m: Any, x: Map) -> Map:
    return F.relu(torch.stack([x, m.one(x), m.three(x)]).sum(0))


@block(scale=norm, convs=several(3, conv_bn), skip=norm)
def mobileone(m: Any, x: Map) -> Map:
    out = m.scale(x)
    for layer in m.convs:
        out += layer(x)
    out += m.skip(x)
    return F.relu(out)


@block(convs=several(3, partial(conv_bn, groups=CHANNELS)))
def mobileone_depthwise_without_norms(m: Any, x: Map) -> Map:
    out = x
    for layer in m.convs:
        out = out + layer(x)
    return F.relu(out)


@block(
    square=conv_bn,
    row=partial(nn.Conv2d, 4, 4, (1, 3), padding=(0, 1)),
    column=partial(nn.Conv2d, 4, 4, (3, 1), padding=(1, 0)),
)
def asymmetric_convolutions(m: Any, x: Map) -> Map:
    return m.square(x) + m.row(x) + m.column(x)


@block(large=partial(conv_bn, 7, groups=CHANNELS), small=partial(conv_bn, 3, groups=CHANNELS))
def large_kernel(m: Any, x: Map) -> Map:
    return m.large(x) + m.small(x)


@block(
    original=conv_bn,
    one=partial(conv_bn, 1),
    reduced=lambda: nn.Sequential(conv_bn(1), conv_bn()),
    pooled=lambda: nn.Sequential(conv_bn(1), nn.AvgPool2d(3, 1, 1)),
)
def diverse_branches(m: Any, x: Map) -> Map:
    return F.relu(m.original(x) + m.one(x) + m.pooled(x) + m.reduced(x))


@block(original=conv_bn, reduced=lambda: nn.Sequential(conv_bn(1), conv_bn()))
def diverse_branches_two(m: Any, x: Map) -> Map:
    return F.relu(m.original(x) + m.reduced(x))


@block(convolution=conv_bn, norm=norm)
def rep_ghost(m: Any, x: Map) -> Map:
    return F.relu(m.convolution(x) + m.norm(x))


@block(base=partial(conv, 1), a=partial(conv, 1, outputs=2), b=partial(conv, 1, inputs=2))
def low_rank_adapter(m: Any, x: Map) -> Map:
    return m.base(x) + m.b(m.a(x)) * 0.5


REPARAMETRISED = [
    repvgg, repvgg_identity_first, repvgg_identity_between, repvgg_bracketed, repvgg_in_place, repvgg_add_method,
    repvgg_torch_add, repvgg_list_and_sum, repvgg_norms_of_their_own, repvgg_norm_on_identity, repvgg_scaled_identity,
    repvgg_scaled_convolutions, repvgg_optional_identity, repvgg_stacked_and_summed, mobileone,
    mobileone_depthwise_without_norms, asymmetric_convolutions, large_kernel, diverse_branches, diverse_branches_two,
    rep_ghost, low_rank_adapter,
]  # fmt: skip


# --- cells of searched architectures


def reduce() -> nn.Module:
    return conv(1, inputs=3 * CHANNELS)


@block(a=separable, b=separable, c=separable, reduce=reduce)
def nas_cell(m: Any, x: Map) -> Map:
    pooled = F.max_pool2d(x, 3, 1, 1)
    return m.reduce(torch.cat([m.a(x) + x, m.b(x) + pooled, m.c(pooled) + pooled], 1))


@block(a=separable, b=separable, c=separable, reduce=reduce)
def nas_cell_identity_first(m: Any, x: Map) -> Map:
    return m.reduce(torch.cat(tensors=(x + m.a(x), torch.add(x, m.b(x)), x + m.c(x)), dim=1))


@block(a=separable, b=separable, c=separable, reduce=reduce)
def nas_cell_concat(m: Any, x: Map) -> Map:
    sums = [layer(x) + x for layer in (m.a, m.b, m.c)]
    return m.reduce(torch.concatenate(sums, dim=1))


@block(layers=several(3, separable), reduce=reduce, previous=partial(conv_bn_act, 1))
def nas_cell_two_inputs(m: Any, x: Map) -> Map:
    states = [m.previous(x), x]
    for layer in m.layers:
        states.append(layer(states[-1]) + states[-2])
    return m.reduce(torch.cat(states[-3:], dim=1))


@block(layers=several(6, separable), reduce=reduce)
def darts_cell(m: Any, x: Map) -> Map:
    states = [x, F.avg_pool2d(x, 3, 1, 1)]
    for step in range(3):
        states.append(m.layers[2 * step](states[-1]) + m.layers[2 * step + 1](states[-2]))
    return m.reduce(torch.cat(states[2:], 1))


@block(a=separable, b=partial(conv_bn, 1), c=two_convs, weights=lambda: nn.Parameter(torch.rand(4)))
def mixed_operation(m: Any, x: Map) -> Map:
    weights = m.weights.softmax(0)
    return sum(weight * layer(x) for weight, layer in zip(weights.unbind(), (m.a, m.b, m.c), strict=False))  # pyright: ignore


NAS = [nas_cell, nas_cell_identity_first, nas_cell_concat, nas_cell_two_inputs, darts_cell, mixed_operation]


# --- position embeddings


@block(position=lambda: nn.Parameter(torch.rand(64, CHANNELS)), f=linear)
def position_parameter(m: Any, x: Map) -> Tensor:
    return m.f(tokens(x) + m.position)


@block(position=lambda: nn.Parameter(torch.rand(1, CHANNELS, 4, 4)), f=linear)
def position_resized(m: Any, x: Map) -> Tensor:
    x += F.interpolate(m.position, size=x.shape[2:], mode="bilinear")
    return m.f(tokens(x))


@block(position=partial(nn.Embedding, 64, CHANNELS), f=linear)
def position_table(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    return m.f(torch.add(m.position(torch.arange(x.shape[1])), x))


@block(row=partial(nn.Embedding, 8, CHANNELS), column=partial(nn.Embedding, 8, CHANNELS), f=linear)
def position_rows_and_columns(m: Any, x: Map) -> Tensor:
    rows, columns = m.row(torch.arange(x.size(2))), m.column(torch.arange(x.size(3)))
    position = (rows[:, None] + columns[None]).flatten(0, 1)
    return m.f(tokens(x).add(position))


@block(project=mlp)
def position_by_a_network(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    position = torch.linspace(0, 1, 64, dtype=x.dtype, device=x.device)[:, None].expand(-1, x.shape[-1])
    return x + m.project(position)


@block(project=conv)
def position_by_coordinates(m: Any, x: Map) -> Map:
    rows = torch.linspace(-1, 1, x.shape[2]).to(x)[:, None].expand(x.shape[1], -1, x.shape[3])
    return x + m.project(torch.zeros_like(x) + rows)


@block(project=conv, grid=lambda: nn.Parameter(torch.rand(1, CHANNELS, 8, 8)))
def position_cast_and_expanded(m: Any, x: Map) -> Map:
    return x + m.project(m.grid.to(x))


@block(project=conv, grid=lambda: nn.Parameter(torch.rand(1, CHANNELS, 8, 8)))
def position_of_the_shape_of_the_input(m: Any, x: Map) -> Map:
    return m.project(m.grid.expand_as(x).type_as(x)) + x


@block(
    words=partial(nn.Embedding, 10, CHANNELS),
    places=partial(nn.Embedding, 10, CHANNELS),
    kinds=partial(nn.Embedding, 2, CHANNELS),
    f=linear,
)
def embeddings_of_words_and_places(m: Any, x: Map) -> Tensor:
    ids = (x[:, 0, 0].abs() * 3).long().clamp(max=9)
    words = m.words(ids)
    words = words + m.kinds(torch.zeros_like(ids))
    return m.f(words + m.places((ids != 0).long().cumsum(1)))


@block(words=partial(nn.Embedding, 10, CHANNELS), places=lambda: nn.Sequential(nn.Embedding(10, CHANNELS), linear()))
def embeddings_with_projected_places(m: Any, x: Map) -> Tensor:
    ids = (x[:, 0, 0].abs() * 3).long().clamp(max=9)
    return m.words(ids) + m.places((ids != 0).long().cumsum(1))


@block(project=linear, places=lambda: nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, CHANNELS)), f=linear)
def places_of_points(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    return m.f(m.project(x) + m.places(x[..., :2]))


POSITIONS = [
    position_parameter, position_resized, position_table, position_rows_and_columns, position_by_a_network,
    position_by_coordinates, position_cast_and_expanded, position_of_the_shape_of_the_input,
    embeddings_of_words_and_places, embeddings_with_projected_places, places_of_points,
]  # fmt: skip


# --- sums inside an attention


@block(qkv=partial(nn.Linear, CHANNELS, 3 * CHANNELS), bias=lambda: nn.Parameter(torch.rand(64, 64)))
def attention_bias_table(m: Any, x: Map) -> Tensor:
    q, k, v = m.qkv(tokens(x)).chunk(3, -1)
    return (q @ k.mT + m.bias).softmax(-1) @ v


@block(qkv=partial(nn.Linear, CHANNELS, 3 * CHANNELS), bias=partial(nn.Linear, CHANNELS, 64))
def attention_bias_of_queries(m: Any, x: Map) -> Tensor:
    q, k, v = m.qkv(tokens(x)).chunk(3, -1)
    scores = q @ k.mT
    scores += m.bias(q)
    return scores.softmax(-1) @ v


@block(q=linear, k=linear, v=linear, bias=partial(nn.Linear, CHANNELS, 64))
def attention_bias_beside_three_layers(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    q = m.q(x)
    return torch.softmax(torch.add(m.bias(q), q @ m.k(x).mT), dim=-1) @ m.v(x)


@block(q=linear, k=linear, v=linear, shrink=partial(conv, 2, stride=2), bias=partial(nn.Linear, CHANNELS, 25))
def attention_bias_beside_shrunk_keys(m: Any, x: Map) -> Tensor:
    q = m.q(tokens(x))
    shrunk = tokens(m.shrink(x))
    return (m.bias(q) + q @ m.k(shrunk).mT).softmax(-1) @ m.v(shrunk)


@block(qkv=partial(nn.Linear, CHANNELS, 3 * CHANNELS), rows=lambda: nn.Parameter(torch.rand(64, 64, CHANNELS)))
def attention_decomposed_bias(m: Any, x: Map) -> Tensor:
    q, k, v = m.qkv(tokens(x)).chunk(3, -1)
    return (q @ k.mT + torch.einsum("bqc,qkc->bqk", q, m.rows)).softmax(-1) @ v


@block(qkv=partial(nn.Linear, CHANNELS, 3 * CHANNELS), places=partial(conv, groups=CHANNELS))
def places_of_values(m: Any, x: Map) -> Tensor:
    q, k, v = m.qkv(tokens(x)).chunk(3, -1)
    places = tokens(m.places(v.transpose(1, 2).unflatten(2, (8, 8))))
    return (q @ k.mT).softmax(-1) @ v + places


@block(q=linear, k=linear, v=linear, places=partial(conv, groups=CHANNELS))
def places_of_values_beside_three_layers(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    q, k, v = m.q(x), m.k(x), m.v(x)
    out = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
    out += tokens(m.places(v.transpose(1, 2).unflatten(2, (8, 8))))
    return out


@block(q=mlp, k=mlp, v=linear, places=conv)
def places_of_values_beside_deep_queries(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    q, k, v = m.q(x), m.k(x), m.v(x)
    return (q @ k.mT).softmax(-1) @ v + tokens(m.places(v.transpose(1, 2).unflatten(2, (8, 8))))


@block(q=linear, k=linear, v=linear)
def attention_mask(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    mask = torch.where(x[..., 0] > 0, 0.0, -1e9)[:, None]
    return (m.q(x) @ m.k(x).mT + mask).softmax(-1) @ m.v(x)


ATTENTIONS = [
    attention_bias_table, attention_bias_of_queries, attention_bias_beside_three_layers,
    attention_bias_beside_shrunk_keys, attention_decomposed_bias, places_of_values,
    places_of_values_beside_three_layers, places_of_values_beside_deep_queries, attention_mask,
]  # fmt: skip


# --- feature pyramids, U-nets, fusion of resolutions


@block(levels=several(3, down), lateral=several(3, partial(conv, 1)), smooth=several(3, conv))
def pyramid(m: Any, x: Map) -> list[Map]:
    maps = []
    for level in m.levels[:2]:
        x = level(x)
        maps.append(x)
    laterals = [lateral(each) for lateral, each in zip(m.lateral, maps, strict=False)]
    laterals[0] = laterals[0] + up(laterals[1])
    return [smooth(each) for smooth, each in zip(m.smooth, laterals, strict=False)]


@block(first=down, second=down, lateral1=partial(conv, 1), lateral2=partial(conv, 1))
def pyramid_lowest_map(m: Any, x: Map) -> Map:
    x = m.first(x)
    return m.lateral1(x) + up(m.lateral2(m.second(x)))


@block(first=down, second=down, lateral1=partial(conv, 1), lateral2=partial(conv, 1), out=conv)
def pyramid_lowest_map_top_first(m: Any, x: Map) -> Map:
    x = m.first(x)
    top = F.interpolate(m.lateral2(m.second(x)), size=x.shape[-2:])
    top += m.lateral1(x)
    return m.out(top)


@block(first=down, second=down, lateral1=partial(conv, 1), lateral2=partial(conv, 1))
def pyramid_that_returns_all(m: Any, x: Map) -> dict[str, Map]:
    first = m.first(x)
    top = m.lateral2(m.second(first))
    return {"0": m.lateral1(first) + up(top), "1": top}


@block(lateral=several(2, partial(conv, 1)))
def pyramid_of_a_list(m: Any, maps: list[Map]) -> Map:
    last = m.lateral[1](maps[1])
    return m.lateral[0](maps[0]) + F.interpolate(last, size=maps[0].shape[-2:])


@block(first=down, second=down, neck=pyramid_of_a_list)
def network_with_pyramid_of_a_list(m: Any, x: Map) -> Map:
    first = m.first(x)
    return m.neck([first, m.second(first)])


@block(encode=down, middle=two_convs, grow=partial(nn.ConvTranspose2d, CHANNELS, CHANNELS, 2, 2), out=conv)
def unet_sum(m: Any, x: Map) -> Map:
    return m.out(m.grow(m.middle(m.encode(x))) + x)


@block(first=down, second=down, decode2=two_convs, decode1=two_convs)
def unet_two_levels(m: Any, x: Map) -> Map:
    first = m.first(x)
    second = m.second(first)
    first = up(m.decode2(second)) + first
    return up(m.decode1(first)) + x


@block(f=two_convs)
def decoder(m: Any, x: Map, skip: Map) -> Map:
    return m.f(up(x)) + skip


@block(f=two_convs)
def decoder_optional(m: Any, x: Map, skip: Map | None = None) -> Map:
    x = m.f(up(x))
    return x if skip is None else x + skip


@block(f=conv)
def decoder_sums_first(m: Any, x: Map, skip: Map) -> Map:
    return m.f(up(x) + skip)


def unet_of(part: type[nn.Module]) -> Any:
    @block(first=down, second=down, decode2=part, decode1=part)
    def unet(m: Any, x: Map) -> Map:
        first = m.first(x)
        return m.decode1(m.decode2(m.second(first), first), x)

    unet.__name__ = f"unet_of_{part.__name__}"
    return unet


@block(high=two_convs, low=down, to_low=down, to_high=partial(conv_bn, 1), high_again=two_convs, low_again=two_convs)
def fused_resolutions(m: Any, x: Map) -> Map:
    high, low = m.high(x), m.low(x)
    fused_high = F.relu(high + up(m.to_high(low)))
    fused_low = F.relu(m.to_low(high) + low)
    return m.high_again(fused_high) + up(m.low_again(fused_low))


@block(to_low=down, to_high=partial(conv_bn, 1))
def fusion(m: Any, maps: list[Map]) -> list[Map]:
    high, low = maps
    return [F.relu(high + up(m.to_high(low))), F.relu(m.to_low(high) + low)]


@block(high=two_convs, low=down, fuse=fusion)
def fused_resolutions_in_a_list(m: Any, x: Map) -> Map:
    high, low = m.fuse([m.high(x), m.low(x)])
    return high + up(low)


@block(high=two_convs, low=lambda: nn.Sequential(nn.AvgPool2d(2), two_convs()))
def octave(m: Any, x: Map) -> Map:
    return m.high(x) + up(m.low(x))


PYRAMIDS = [
    pyramid, pyramid_lowest_map, pyramid_lowest_map_top_first, pyramid_that_returns_all,
    network_with_pyramid_of_a_list, unet_sum, unet_two_levels, unet_of(decoder), unet_of(decoder_optional),
    unet_of(decoder_sums_first), fused_resolutions, fused_resolutions_in_a_list, octave,
]  # fmt: skip


# --- parallel layers whose outputs are summed


@block(
    one=partial(conv_bn_act, 1),
    rates=lambda: nn.ModuleList(conv_bn_act(3, dilation=rate) for rate in (1, 2)),
    pooled=partial(conv, 1),
)
def spatial_pyramid(m: Any, x: Map) -> Map:
    out = m.one(x)
    for layer in m.rates:
        out = out + layer(x)
    return out + F.interpolate(m.pooled(x.mean((2, 3), keepdim=True)), size=x.shape[2:])


@block(one=partial(conv_bn_act, 1), rates=lambda: nn.ModuleList(separable(dilation=1) for _ in (1, 2)))
def spatial_pyramid_separable(m: Any, x: Map) -> Map:
    out = m.one(x)
    for layer in m.rates:
        out = out + layer(x)
    return out


@block(layers=several(3, conv_bn_act))
def spatial_pyramid_sum_of_list(m: Any, x: Map) -> Map:
    return sum([layer(x) for layer in m.layers])  # pyright: ignore[reportReturnType]


@block(a=two_convs, b=two_convs)
def halves(m: Any, x: Map) -> Map:
    return m.a(x) + m.b(x.flip(1))


@block(a=conv_bn, b=two_convs)
def two_inputs(m: Any, x: Map, y: Map) -> Map:
    return m.a(x) + m.b(y)


@block(a=partial(conv, inputs=2), b=lambda: nn.Sequential(conv(inputs=2), nn.ReLU(), conv()))
def two_streams_of_channels(m: Any, x: Map) -> Map:
    return m.a(x[:, :2]) + m.b(x[:, 2:])


@block(a=partial(conv, inputs=2), b=lambda: nn.Sequential(conv(inputs=2), nn.ReLU(), conv()))
def two_streams_of_chunks(m: Any, x: Map) -> Map:
    first, second = x.chunk(2, 1)
    return m.a(first) + m.b(second)


@block(a=conv, b=two_convs)
def two_streams_in_a_list(m: Any, xs: list[Map]) -> Map:
    return m.a(xs[0]) + m.b(xs[1])


@block(a=conv, b=two_convs)
def two_streams_in_a_tuple(m: Any, xs: tuple[Map, Map]) -> Map:
    first, second = xs
    return torch.add(m.b(second), m.a(first))


@block(a=conv, b=two_convs)
def two_streams_in_a_dict(m: Any, xs: dict[str, Map]) -> Map:
    return m.a(xs["rgb"]) + m.b(xs["flow"])


@block(a=conv, b=two_convs)
def two_streams_of_a_batch(m: Any, batch: Any) -> Map:
    return m.a(batch.rgb) + m.b(batch.flow)


PARALLEL = [
    spatial_pyramid,
    spatial_pyramid_separable,
    spatial_pyramid_sum_of_list,
    halves,
    two_streams_of_channels,
    two_streams_of_chunks,
]
OTHER_INPUTS = [
    two_inputs,
    two_streams_in_a_list,
    two_streams_in_a_tuple,
    two_streams_in_a_dict,
    two_streams_of_a_batch,
    pyramid_of_a_list,
    fusion,
]


# --- gates


@block(f=two_convs, gate=conv)
def highway(m: Any, x: Map) -> Map:
    gate = torch.sigmoid(m.gate(x))
    return gate * m.f(x) + (1 - gate) * x


@block(f=two_convs, gate=conv)
def highway_two_lines(m: Any, x: Map) -> Map:
    gate = m.gate(x).sigmoid()
    kept = x * (1 - gate)
    kept += m.f(x) * gate
    return kept


@block(f=conv, gate=conv)
def gate_and_layer(m: Any, x: Map) -> Map:
    return x * torch.sigmoid(m.gate(x)) + m.f(x)


@block(reduce=linear, expand=linear)
def squeeze_and_excite(m: Any, x: Map) -> Map:
    return x * torch.sigmoid(m.expand(F.relu(m.reduce(x.mean((2, 3))))))[:, :, None, None]


@block(shared=mlp)
def squeeze_by_mean_and_maximum(m: Any, x: Map) -> Map:
    return x * torch.sigmoid(m.shared(x.mean((2, 3))) + m.shared(x.amax((2, 3))))[:, :, None, None]


@block(gate=mlp)
def one_plus_gate(m: Any, x: Map) -> Map:
    return x * (1 + m.gate(x.mean((2, 3)))[:, :, None, None])


@block(gamma=linear, beta=linear)
def modulation(m: Any, x: Map) -> Map:
    pooled = x.mean((2, 3))
    return x * m.gamma(pooled)[:, :, None, None] + m.beta(pooled)[:, :, None, None]


@block(gamma=mlp, beta=linear)
def modulation_of_unequal_depth(m: Any, x: Map) -> Map:
    pooled = x.mean((2, 3))
    return x * m.gamma(pooled)[:, :, None, None] + m.beta(pooled)[:, :, None, None]


@block(both=partial(nn.Linear, CHANNELS, 2 * CHANNELS), norm=norm)
def modulation_by_chunks(m: Any, x: Map) -> Map:
    scale, shift = m.both(x.mean((2, 3)))[:, :, None, None].chunk(2, 1)
    return m.norm(x) * (1 + scale) + shift


@block(f=conv, g=conv)
def gated_unit(m: Any, x: Map) -> Map:
    update = torch.sigmoid(m.g(x))
    return (1 - update) * torch.tanh(m.f(x)) + update * x


@block(f=conv, g=partial(conv, 1))
def large_and_small_gates(m: Any, x: Map) -> Map:
    return torch.sigmoid(m.f(x)) * x + torch.sigmoid(m.g(x)) * x


GATES = [
    highway, highway_two_lines, gate_and_layer, squeeze_and_excite, squeeze_by_mean_and_maximum,
    one_plus_gate, modulation, modulation_of_unequal_depth, modulation_by_chunks, gated_unit,
    large_and_small_gates,
]  # fmt: skip


# --- sums over time, of noise, of losses


class moving_average(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = two_convs()
        self.register_buffer("average", torch.zeros(CHANNELS, 1, 1))

    def forward(self, x: Map) -> Map:
        return 0.9 * self.get_buffer("average") + 0.1 * self.f(x)


@block(f=linear)
def moving_sum(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    state = torch.zeros_like(x[:, 0])
    for step in range(3):
        state = 0.9 * state + 0.1 * m.f(x[:, step])
    return state


@block(f=mlp)
def moving_sum_from_the_first(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    state = x[:, 0]
    for step in range(1, 3):
        state = 0.9 * state + 0.1 * m.f(x[:, step])
    return state


@block(inner=linear, outer=linear)
def recurrent_cell(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    state = torch.zeros_like(x[:, 0])
    for step in range(3):
        state = torch.tanh(m.inner(x[:, step]) + m.outer(state))
    return state


@block(gamma=scale, f=conv)
def noise(m: Any, x: Map) -> Map:
    return m.f(x + m.gamma * torch.randn_like(x))


@block(mean=linear, deviation=linear)
def sampled(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    return m.mean(x) + torch.randn_like(x) * torch.exp(0.5 * m.deviation(x))


@block(mean=linear, deviation=mlp)
def sampled_by_a_deeper_deviation(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    return m.mean(x) + torch.randn_like(x) * torch.exp(0.5 * m.deviation(x))


@block(bias=scale, f=conv)
def bias(m: Any, x: Map) -> Map:
    return m.f(x) + m.bias


@block(f=conv)
def quantised(m: Any, x: Map) -> Map:
    x = m.f(x)
    return x + (x.round() - x).detach()


@block(codes=partial(nn.Embedding, 10, CHANNELS))
def straight_through(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    nearest = torch.cdist(x, m.codes.weight).argmin(-1)
    return x + (m.codes(nearest) - x).detach()


@block(experts=several(2, mlp), router=partial(nn.Linear, CHANNELS, 2))
def mixture(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    weights = m.router(x).softmax(-1)
    return weights[..., :1] * m.experts[0](x) + weights[..., 1:] * m.experts[1](x)


OVER_TIME = [
    moving_average,
    moving_sum,
    moving_sum_from_the_first,
    recurrent_cell,
    noise,
    sampled,
    sampled_by_a_deeper_deviation,
    bias,
    quantised,
    straight_through,
    mixture,
]


# --- heads of detectors


@block(anchors=lambda: nn.Parameter(torch.rand(64, 4), requires_grad=False), deltas=mlp)
def anchors_and_deltas(m: Any, x: Map) -> Tensor:
    return m.anchors + m.deltas(tokens(x))


@block(classes=two_convs, boxes=two_convs)
def two_heads(m: Any, x: Map) -> tuple[Tensor, Tensor]:
    return m.classes(x), m.boxes(x)


@block(head=linear, aux=linear)
def heads_of_token_and_patches(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    return m.head(x[:, 0]) + 0.5 * m.aux(x[:, 1:]).amax(1)


@block(head=linear, distilled=linear)
def mean_of_two_heads(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    return (m.head(x[:, 0]) + m.distilled(x[:, 1])) / 2


@block(reference=partial(nn.Linear, CHANNELS, 2), offsets=partial(nn.Linear, CHANNELS, 2))
def reference_and_offsets(m: Any, x: Map) -> Tensor:
    x = tokens(x)
    return m.reference(x).sigmoid() + m.offsets(x)


@block(layers=several(2, mlp), boxes=several(2, mlp))
def refined_boxes(m: Any, x: Map) -> tuple[Tensor, Tensor]:
    x = tokens(x)
    boxes = x.mean(1, keepdim=True).sigmoid()
    for layer, head in zip(m.layers, m.boxes, strict=True):
        x = layer(x * boxes)
        boxes = (head(x) + torch.logit(boxes)).sigmoid()
    return x, boxes


HEADS = [
    anchors_and_deltas,
    two_heads,
    heads_of_token_and_patches,
    mean_of_two_heads,
    reference_and_offsets,
    refined_boxes,
]

GROUPS = [REPARAMETRISED, NAS, POSITIONS, ATTENTIONS, PYRAMIDS, PARALLEL, GATES, OVER_TIME, HEADS]
EVERYTHING = [build for group in GROUPS for build in group]


@block(f=two_convs)
def true_block(m: Any, x: Map) -> Map:
    return x + m.f(x)


def cases(names: Any, default: Any = None) -> list[Any]:
    """Parameters of a test, named; in the full tier alone where they are not in `default`."""
    named = {name if isinstance(name, str) else name.__name__: name for name in names}
    marks = {name: () if default is None or name in default else pytest.mark.full for name in named}
    return [pytest.param(case, id=name, marks=marks[name]) for name, case in named.items()]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0].__name__)
def test_what_has_no_branch_beside_true_branches(group: Any) -> None:
    """All of a group in one network, one by one in the full tier."""
    model = nn.Sequential(true_block(), *(build() for build in group), true_block())
    last = len(group) + 1
    assert_branches(model, {"0": ("0.f",), f"{last}": (f"{last}.f",)})


@pytest.mark.parametrize("build", cases(EVERYTHING, {"repvgg", "nas_cell", "highway", "moving_average"}))
def test_what_has_no_branch(build: Any) -> None:
    module = build()
    module(torch.rand(2, CHANNELS, 8, 8))  # it is a module that runs
    with pytest.raises(NoResidualBranchError):
        discover(build())
        raise AssertionError(f"found {branches_of(module)}")
    assert_branches(nn.Sequential(true_block(), build(), true_block()), {"0": ("0.f",), "2": ("2.f",)})


@pytest.mark.parametrize("build", cases(OTHER_INPUTS))
def test_what_has_no_branch_on_other_inputs(build: Any) -> None:
    assert branches_of(build()) == {}


@pytest.mark.parametrize(
    "build", [repvgg, repvgg_identity_first, repvgg_torch_add, nas_cell, nas_cell_two_inputs], ids=lambda b: b.__name__
)
def test_form_alone_would_not_tell(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """These have the form of residual adds: without the look at what surrounds them they would be found."""
    monkeypatch.setattr(_Rule, "is_other_kind_of_sum", lambda flow, node: "")
    assert branches_of(build())


def timm_model(name: str) -> nn.Module:
    from timm.models import create_model

    with torch.device("meta"):
        return create_model(name)


@pytest.mark.full
@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0"])
def test_timm_has_no_branch(name: str) -> None:
    assert branches_of(timm_model(name)) == {}


def members_by_class(model: nn.Module, members: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """By path of each module of a class named in `members`, what belongs to its branch; `""` is all of it."""
    return {
        path: tuple(f"{path}.{name}".rstrip(".") for name in members[type(module).__name__])
        for path, module in model.named_modules()
        if type(module).__name__ in members and getattr(module, "use_res_connect", True)
    }


@pytest.mark.full
def test_repvit_of_timm() -> None:
    """The token mixers are re-parametrised sums, the channel mixers residual."""
    model = timm_model("repvit_m0_9")
    expected = members_by_class(model, {"RepViTBlock": ("channel_mixer",), "RepVitDownsample": ("ffn",)})
    assert branches_of(model) == made_of(model, expected)


HEADS_OF_TIMM = {
    "xcit_nano_12_p16_224": ("patch_embed", "pos_embed", "cls_token", "norm", "head"),
    "volo_d1_224": ("patch_embed", "pos_embed", "cls_token", "aux_head", "norm", "head"),
    "deit_tiny_distilled_patch16_224": ("patch_embed", "pos_embed", "cls_token", "dist_token", "head", "head_dist"),
    "vit_tiny_patch16_224": ("patch_embed", "pos_embed", "cls_token", "norm", "head"),
    "twins_svt_small": ("patch_embeds", "norm", "head"),
    "crossvit_tiny_240": ("patch_embed", "pos_embed_0", "cls_token_0", "norm", "head"),
}


@pytest.mark.parametrize("name", cases(HEADS_OF_TIMM, {"deit_tiny_distilled_patch16_224"}))
def test_embeddings_and_heads_of_timm_are_trunk(name: str) -> None:
    model, trunk = timm_model(name), HEADS_OF_TIMM[name]
    found = branches_of(model)
    assert len(found) >= 20
    names = [name for name, _ in model.named_parameters()]
    assert all(any(n.startswith(part) for n in names) for part in trunk)
    assert not [n for own in found.values() for n in own if n.split(".")[0] in trunk]


RESNET = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
BY_CLASS = {"Bottleneck": RESNET, "InvertedResidual": ("",)}


@pytest.mark.parametrize(
    "name",
    cases(
        [
            "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_fpn",
            "retinanet_resnet50_fpn", "fcos_resnet50_fpn", "ssdlite320_mobilenet_v3_large", "maskrcnn_resnet50_fpn_v2",
            "keypointrcnn_resnet50_fpn", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "fcn_resnet50",
            "lraspp_mobilenet_v3_large",
        ],
        {"fasterrcnn_resnet50_fpn", "deeplabv3_mobilenet_v3_large"},
    ),
)  # fmt: skip
def test_detection_and_segmentation_of_torchvision(name: str) -> None:
    """Branches lie in the backbone alone."""
    from torchvision.models import get_model

    with torch.device("meta"):
        model = get_model(name, weights=None, weights_backbone=None)
    expected = made_of(model, members_by_class(model, BY_CLASS))
    assert branches_of(model) == expected
    assert len(expected) >= 10 and all(name.startswith("backbone.") for name in expected)


def test_ssd_of_torchvision_has_no_branch() -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        assert branches_of(get_model("ssd300_vgg16", weights=None, weights_backbone=None)) == {}


DETR_DECODER = {"self_attn", "encoder_attn", "mlp"}


@pytest.mark.parametrize(
    "name",
    cases(
        [
            "SegformerForSemanticSegmentation", "YolosForObjectDetection", "UperNetForSemanticSegmentation",
            "DeformableDetrForObjectDetection", "ConditionalDetrForObjectDetection", "RTDetrForObjectDetection",
        ],
        {"RTDetrForObjectDetection"},
    ),
)  # fmt: skip
def test_heads_of_transformers_are_trunk(name: str) -> None:
    """No branch but those of encoder and decoder layers; boxes are refined, maps fused, and neither is a branch."""
    transformers = pytest.importorskip("transformers")
    model_class = getattr(transformers, name)
    resnet = transformers.ResNetConfig(depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"])
    options = {} if "Detr" not in name else {"use_timm_backbone": False, "use_pretrained_backbone": False}
    options |= {"backbone_config": resnet} if "DetrFor" in name and not name.startswith("RT") else {}
    with torch.device("meta"):
        model = model_class(model_class.config_class(**options))
    layers = ("Layer", "BottleNeckLayer", "BasicLayer")
    blocks = {type(branch.block).__name__ for branch in discover(model).branches}
    assert blocks and all(name.endswith(layers) and "CSP" not in name for name in blocks), blocks
