"""Kinds of sums that the rule tells apart: decoders, projections of one channel, losses, several outputs."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residualdroppath import NoResidualBranchError, ResidualDropPath
from residualdroppath.core.discovery.network_walk import discover

from .finding import assert_branches, block, branches_of

C = 4
Map = Tensor  # float[2, C, 8, 8]


def conv(inputs: int = C, outputs: int = C, kernel: int = 3, **options: Any) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def linear(inputs: int = C, outputs: int = C) -> nn.Module:
    return nn.Linear(inputs, outputs)


def mlp() -> nn.Module:
    return nn.Sequential(linear(), nn.ReLU(), linear())


def two_convs() -> nn.Module:
    return nn.Sequential(conv(), nn.ReLU(), conv())


@block(f=two_convs)
def residual(m: Any, x: Map) -> Map:
    return x + m.f(x)


@block(f=mlp)
def residual_mlp(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x)


def reasons(network: nn.Module) -> str:
    try:
        return " ".join(discover(network).rejected_adds.values())
    except NoResidualBranchError as error:
        return str(error)


# --- decoders, whose upsampling lies inside a child


@block(up=lambda: nn.ConvTranspose2d(C, C, 2, 2), norm=partial(nn.BatchNorm2d, C), mix=conv)
def transposed_first(m: Any, x: Map) -> Map:
    return m.mix(m.norm(m.up(x)).relu())


@block(mix=conv)
def interpolating(m: Any, x: Map) -> Map:
    return m.mix(F.interpolate(x, scale_factor=2.0))


def doubled(x: Map) -> Map:
    return F.interpolate(x, size=(x.shape[2] * 2, x.shape[3] * 2), mode="bilinear")


@block(mix=conv)
def interpolating_in_a_function(m: Any, x: Map) -> Map:
    return F.relu(m.mix(doubled(x)))


@block(inner=interpolating, after=two_convs)
def interpolating_two_deep(m: Any, x: Map) -> Map:
    return m.after(m.inner(x))


@block(up=lambda: nn.ConvTranspose2d(C, C, 2, 2), mix=two_convs)
def transposed_then_residual(m: Any, x: Map) -> Map:
    x = m.up(x)
    return x + m.mix(x)


@block(up=lambda: nn.ConvTranspose2d(C, C, 2, 2), mix=conv)
def transposed_unless_odd(m: Any, x: Map) -> Map:
    """Cannot be traced."""
    return m.mix(m.up(x)) if x.sum() > -1e9 else x


UPS = {
    "transposed_first": transposed_first,
    "interpolating": interpolating,
    "interpolating_in_a_function": interpolating_in_a_function,
    "interpolating_two_deep": interpolating_two_deep,
    "transposed_then_residual": transposed_then_residual,
    "transposed_unless_odd": transposed_unless_odd,
    "transposed_norm_activation": lambda: nn.Sequential(
        nn.ConvTranspose2d(C, C, 2, 2), nn.BatchNorm2d(C), nn.LeakyReLU(), nn.Dropout2d(0.1)
    ),
    "shuffled_not_last": lambda: nn.Sequential(conv(C, 4 * C), nn.PixelShuffle(2), conv(), nn.ReLU()),
    "upsample_not_last": lambda: nn.Sequential(nn.Upsample(scale_factor=2), two_convs()),
    "nested_sequences": lambda: nn.Sequential(
        nn.Sequential(nn.Sequential(nn.Upsample(scale_factor=2), conv())), conv()
    ),
}


def unet(up: Any) -> type[nn.Module]:
    @block(stem=conv, enc=residual, down=partial(conv, stride=2), mid=residual, up=up, dec=residual)
    def network(m: Any, x: Map) -> Map:
        skip = m.enc(m.stem(x))
        return m.dec(m.up(m.mid(m.down(skip))) + skip)

    return network


@pytest.mark.parametrize("up", UPS)
def test_a_sum_with_what_was_upsampled_inside_a_child(up: str) -> None:
    network = unet(UPS[up])()
    network(torch.rand(2, C, 8, 8))
    found = {name for name in branches_of(network) if not name.startswith("up")}
    assert found == {"enc", "mid", "dec"}
    assert "resized" in reasons(network)


@pytest.mark.parametrize("up", ["transposed_first", "interpolating", "transposed_norm_activation"])
def test_a_sum_with_what_was_upsampled_and_learned_on(up: str) -> None:
    """Between the upsampling and the sum values join: a residual add, a gate."""

    @block(down=partial(conv, stride=2), mid=residual, up=UPS[up], f=two_convs, gate=conv, dec=residual)
    def network(m: Any, x: Map) -> Map:
        y = m.up(m.mid(m.down(x)))
        y = y + m.f(y)
        y = y * m.gate(y).sigmoid()
        return m.dec(y + x)

    assert [branch.suffix for branch in discover(network()).branches if branch.block_path == ""] == ["f"]
    assert {name for name in branches_of(network()) if not name.startswith("up")} == {"mid", "network", "dec"}


@block(g=partial(conv, kernel=1), x=partial(conv, kernel=1), psi=partial(conv, outputs=1, kernel=1))
def attention_gate(m: Any, g: Map, x: Map) -> Map:
    return x * m.psi((m.g(g) + m.x(x)).relu()).sigmoid()


@pytest.mark.parametrize("up", UPS)
def test_an_attention_gate(up: str) -> None:
    @block(enc=residual, down=partial(conv, stride=2), mid=residual, up=UPS[up], gate=attention_gate, dec=residual)
    def network(m: Any, x: Map) -> Map:
        skip = m.enc(x)
        g = m.up(m.mid(m.down(skip)))
        return m.dec(m.gate(g, skip) * g)

    found = {name for name in branches_of(network()) if not name.startswith("up")}
    assert found == {"enc", "mid", "dec"}


@pytest.mark.parametrize("layers", [(), (nn.BatchNorm2d(C), nn.ReLU())], ids=["last", "normed"])
def test_a_decoder_in_one_sequence_with_its_encoder(layers: Any) -> None:
    @block(inner=lambda: nn.Sequential(conv(stride=2), residual(), nn.ConvTranspose2d(C, C, 2, 2), *layers))
    def network(m: Any, x: Map) -> Map:
        return x + m.inner(x)

    assert_branches(network(), {"inner.1": ("inner.1.f",)})


@block(small=lambda: nn.AvgPool2d(2), f=two_convs)
def hourglass(m: Any, x: Map) -> Map:
    return F.interpolate(m.f(m.small(x)), size=x.shape[2:])


@block(f=partial(conv, stride=2), up=lambda: nn.ConvTranspose2d(C, C, 2, 2), mix=conv)
def strided_hourglass(m: Any, x: Map) -> Map:
    return m.mix(m.up(m.f(x).relu()))


@block(q=conv, v=conv)
def attention_over_positions(m: Any, x: Map) -> Map:
    places = F.interpolate(m.q.weight[:1], size=x.shape[2:])
    return m.v(x + places) * m.q(x).sigmoid()


@pytest.mark.parametrize(
    "inner", [hourglass, strided_hourglass, attention_over_positions], ids=lambda make: make.__name__
)
def test_a_branch_that_shrinks_and_grows_again(inner: Any) -> None:
    @block(inner=inner)
    def around(m: Any, x: Map) -> Map:
        return x + m.inner(x)

    around()(torch.rand(2, C, 8, 8))
    assert_branches(nn.Sequential(around(), residual()), {"0": ("0.inner",), "1": ("1.f",)})


def test_a_residual_block_that_enlarges_both_sides() -> None:
    @block(inner=interpolating, last=conv, skip=partial(conv, kernel=1))
    def around(m: Any, x: Map) -> Map:
        return F.interpolate(m.skip(x), scale_factor=2) + m.last(m.inner(x))

    assert_branches(nn.Sequential(around(), residual()), {"0": ("0.inner", "0.last"), "1": ("1.f",)})


# --- projections from one channel


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["convolution", "linear", "normed", "weight_norm", "to_one"])
def test_a_projection_from_or_to_one_channel(channels: int, kind: str) -> None:
    outputs = 1 if kind == "to_one" else 8
    make = {
        "convolution": lambda: conv(channels, outputs, 1),
        "normed": lambda: nn.Sequential(conv(channels, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        "linear": lambda: nn.Linear(channels, outputs),
        "weight_norm": lambda: torch.nn.utils.parametrizations.weight_norm(conv(channels, outputs, 1)),
        "to_one": lambda: conv(channels, outputs, 1),
    }[kind]
    layer = partial(nn.Linear) if kind == "linear" else partial(conv, kernel=1)

    @block(a=partial(layer, channels, 8), b=partial(layer, 8, outputs), skip=make)
    def projected(m: Any, x: Tensor) -> Tensor:
        return m.b(m.a(x).relu()) + m.skip(x)

    assert_branches(nn.Sequential(projected()), {"0": ("0.a", "0.b")})


def test_a_depthwise_layer_is_no_projection() -> None:
    @block(f=two_convs, scale=lambda: nn.Conv2d(C, C, 1, groups=C))
    def scaled(m: Any, x: Map) -> Map:
        return m.scale(x) + m.f(x)

    assert branches_of(scaled()) == {}


# --- losses


@block(body=residual_mlp, head=linear, aux=mlp)
def two_losses(m: Any, x: Tensor) -> Tensor:
    x = m.body(x)
    return F.cross_entropy(m.head(x), x.argmax(-1)) + F.mse_loss(m.aux(x), x)


@block(body=residual_mlp, head=linear, aux=mlp)
def loss_and_weighted_loss(m: Any, x: Tensor) -> Tensor:
    x = m.body(x)
    loss = (m.head(x) - x).pow(2).mean()
    return loss + 0.1 * torch.mean(m.aux(x) ** 2)


@block(body=residual_mlp, aux=mlp)
def regularised(m: Any, x: Tensor) -> Tensor:
    x = m.body(x)
    return x.abs().sum() + m.aux(x).square().sum().sqrt()


@block(body=residual_mlp, head=linear, aux=mlp, loss=nn.CrossEntropyLoss)
def loss_modules(m: Any, x: Tensor) -> Tensor:
    x = m.body(x)
    loss = m.loss(m.head(x), x.argmax(-1))
    loss += m.loss(m.aux(x), x.argmax(-1))
    return loss


@block(body=residual_mlp, head=linear, aux=mlp)
def losses_by_row(m: Any, x: Tensor) -> Tensor:
    x = m.body(x)
    losses = F.cross_entropy(m.head(x), x.argmax(-1), reduction="none")
    return (losses + 0.5 * F.cross_entropy(m.aux(x), x.argmax(-1), reduction="none")).mean()


@block(body=residual_mlp, router=mlp)
def balance_carried_along(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = m.body(x)
    balance = x.sum() * 0.0
    balance = balance + m.router(x).softmax(-1).mean(0).pow(2).sum()
    return x, balance


LOSSES = [two_losses, loss_and_weighted_loss, regularised, loss_modules, losses_by_row, balance_carried_along]


@pytest.mark.parametrize("make", LOSSES, ids=lambda make: make.__name__)
def test_a_sum_of_losses(make: Any) -> None:
    make()(torch.rand(2, C))
    assert_branches(make(), {"body": ("body.f",)})
    assert "it sums losses" in reasons(make())


def test_a_layer_of_experts_with_its_balance() -> None:
    @block(router=linear, experts=mlp)
    def experts(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        weights = m.router(x).softmax(-1)
        return m.experts(x) * weights, weights.mean(0).square().sum()

    @block(f=mlp, moe=experts)
    def layer(m: Any, x: Tensor, balance: Tensor) -> tuple[Tensor, Tensor]:
        x = x + m.f(x)
        mixed, own = m.moe(x)
        return x + mixed, balance + own

    @block(layers=lambda: nn.ModuleList(layer() for _ in range(2)))
    def network(m: Any, x: Tensor) -> Tensor:
        balance = x.new_zeros(())
        for each in m.layers:
            x, balance = each(x, balance)
        return x.sum() + balance

    assert_branches(network(), {f"layers.{i}": (f"layers.{i}.f",) for i in range(2)})
    assert "one call of moe feeds several sums" in reasons(network())


# --- parameters that are read for their dtype, device or shape


def by_dtype(m: Any, x: Tensor) -> Tensor:
    return x.to(m.blocks[0].f[0].weight.dtype)


def by_device(m: Any, x: Tensor) -> Tensor:
    return x.to(next(m.blocks[0].parameters()).device)


def by_weight(m: Any, x: Tensor) -> Tensor:
    return x.to(m.blocks[0].f[0].weight)


def by_shape(m: Any, x: Tensor) -> Tensor:
    return x.view(-1, m.blocks[0].f[0].weight.shape[1])


def by_size(m: Any, x: Tensor) -> Tensor:
    return x * torch.ones(m.blocks[0].f[2].weight.size(0))


def if_there(m: Any, x: Tensor) -> Tensor:
    return x if m.blocks[0].f[0].bias is not None else -x


READERS = [by_dtype, by_device, by_weight, by_shape, by_size, if_there]


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_parameter_read_for_metadata_by_the_trunk(read: Any) -> None:
    @block(stem=linear, blocks=lambda: nn.Sequential(residual_mlp(), residual_mlp()))
    def network(m: Any, x: Tensor) -> Tensor:
        return m.blocks(read(m, m.stem(x)))

    assert_branches(network(), {f"blocks.{i}": (f"blocks.{i}.f",) for i in range(2)})
    assert ResidualDropPath(network()).shared_parameters == ()


@pytest.mark.parametrize("inside", [False, True])
def test_a_parameter_read_for_metadata_by_its_own_block(inside: bool) -> None:
    @block(f=mlp)
    def casting(m: Any, x: Tensor) -> Tensor:
        y = x.to(m.f[0].weight.dtype)
        return (x if inside else y) + m.f(y)

    network = nn.Sequential(casting(), residual_mlp())
    assert_branches(network, {"0": ("0.f",), "1": ("1.f",)})
    assert ResidualDropPath(network).shared_parameters == ()


def test_a_parameter_whose_values_are_read_is_shared() -> None:
    @block(stem=linear, blocks=lambda: nn.Sequential(residual_mlp(), residual_mlp()))
    def network(m: Any, x: Tensor) -> Tensor:
        return m.blocks(m.stem(x) * m.blocks[0].f[0].weight.sum())

    assert ResidualDropPath(network()).shared_parameters == ("blocks.0.f.0.weight",)


# --- children that read the shape of what they are given


@block(table=lambda: nn.Embedding(8, C))
def positions(m: Any, x: Tensor) -> Tensor:
    return m.table(torch.arange(x.shape[1], device=x.device))


@block(table=lambda: nn.Parameter(torch.rand(8, C)), mix=linear)
def mixed_positions(m: Any, x: Tensor, scale: float = 1.0) -> Tensor:
    rows, length, _ = x.size()
    return m.mix(m.table[:length]).expand(rows, length, -1) * scale


@pytest.mark.parametrize("make", [positions, mixed_positions], ids=lambda make: make.__name__)
@pytest.mark.parametrize("part", [lambda x: x, lambda x: x[:, :, :1].expand_as(x)], ids=["whole", "part"])
@pytest.mark.parametrize("with_example", [True, False])
def test_what_is_computed_from_a_shape_is_no_branch(make: Any, part: Any, with_example: bool) -> None:
    @block(stem=linear, places=make, block=residual_mlp)
    def network(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.block(x + m.places(part(x)))

    found = discover(network(), torch.rand(2, 5, C) if with_example else None)
    assert [branch.name for branch in found.branches] == ["block"]


@block(f=linear)
def by_values_and_shape(m: Any, x: Tensor) -> Tensor:
    return m.f(x.reshape(x.shape[0], -1, C))


@block(f=by_values_and_shape)
def around_values_and_shape(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x)


def test_what_is_computed_from_values_and_a_shape_is_one() -> None:
    assert_branches(around_values_and_shape(), {"around_values_and_shape": ("f",)})


# --- values that are written to


@block(f=mlp, norm=partial(nn.LayerNorm, C))
def padded(m: Any, x: Tensor) -> Tensor:
    """As graphs of different sizes in one batch."""
    full = torch.zeros(x.shape[0] + 2, C)
    full[: x.shape[0]] = x
    return m.norm(x + m.f(full)[: x.shape[0]])


@block(f=mlp, norm=partial(nn.LayerNorm, C))
def padded_shortcut(m: Any, x: Tensor) -> Tensor:
    full = torch.zeros(x.shape[0] + 2, C)
    full[1:][: x.shape[0]].copy_(x)
    y = m.norm(full)
    return y + m.f(y)


@pytest.mark.parametrize("make", [padded, padded_shortcut], ids=lambda make: make.__name__)
def test_a_value_that_was_written_to_is_read_as_written(make: Any) -> None:
    assert_branches(nn.Sequential(make(), residual_mlp()), {"0": ("0.f",), "1": ("1.f",)})
    network, x = make(), torch.rand(3, C)
    rdp = ResidualDropPath(network, 0.5, rate_over_depth="uniform")
    dropped = network(x)
    rdp.remove()
    network.f[2].weight.data.zero_()
    network.f[2].bias.data.zero_()
    torch.testing.assert_close(dropped, network(x))


# --- children that add two of their arguments


@block(attn=mlp, mlp=mlp)
def layer_with_positions(m: Any, q: Tensor, positions: Tensor) -> Tensor:
    q = q + m.attn(q + positions)
    return q + m.mlp(q)


@block(conv1=linear, conv2=linear, emb=linear)
def block_with_time(m: Any, x: Tensor, time: Tensor) -> Tensor:
    h = m.conv1(x) + m.emb(time)
    return x + m.conv2(h.relu())


@block(conv1=linear, conv2=linear, emb=linear, skip=linear)
def block_with_time_projected(m: Any, x: Tensor, time: Tensor) -> Tensor:
    h = m.conv1(x).relu()
    h = m.conv2((h + m.emb(time)).relu())
    return m.skip(x) + h


@block(dense=linear, norm=partial(nn.LayerNorm, C))
def output(m: Any, hidden: Tensor, given: Tensor) -> Tensor:
    return m.norm(m.dense(hidden) + given)


@block(inner=linear, output=output)
def block_that_adds_in_its_output(m: Any, x: Tensor, more: Tensor) -> Tensor:
    return m.output(m.inner(x + more).relu(), x)


WITH_TWO = {
    layer_with_positions: {".attn": (".attn",), ".mlp": (".mlp",)},
    block_with_time: {"": (".conv1", ".conv2", ".emb")},
    block_with_time_projected: {"": (".conv1", ".conv2", ".emb")},
    block_that_adds_in_its_output: {"": (".inner", ".output.dense")},
}


@pytest.mark.parametrize("make", WITH_TWO, ids=lambda make: make.__name__)
@pytest.mark.parametrize("deep", [False, True])
def test_a_child_that_adds_two_of_its_arguments_is_found_once(make: Any, deep: bool) -> None:
    @block(layers=lambda: nn.ModuleList(make() for _ in range(2)))
    def stage(m: Any, x: Tensor, more: Tensor) -> Tensor:
        for layer in m.layers:
            x = layer(x, more)
        return x

    @block(stage=stage, more=linear)
    def network(m: Any, x: Tensor) -> Tensor:
        more = m.more(x.detach())
        if deep:
            return m.stage(x, more)
        for layer in m.stage.layers:
            x = layer(x, more)
        return x

    paths = [f"stage.layers.{i}" for i in range(2)]
    assert_branches(
        network(),
        {f"{path}{name}": tuple(path + part for part in own) for path in paths for name, own in WITH_TWO[make].items()},
    )
    names = [branch.name for branch in discover(network()).branches]
    assert len(set(names)) == len(names)


@block(dense=linear, more=mlp)
def output_with_an_option(m: Any, hidden: Tensor, given: Tensor, factor: Tensor | None = None) -> Tensor:
    x = m.dense(hidden) + given
    return x if factor is None else x + m.more(x * factor)


@block(inner=linear, output=output_with_an_option)
def block_with_an_option(m: Any, x: Tensor, factor: Tensor | None = None) -> Tensor:
    return m.output(m.inner(x).relu(), x, factor)


def test_what_an_option_adds_in_such_a_child_is_found_once() -> None:
    network = nn.Sequential(block_with_an_option(), residual_mlp())
    names = {"0.inner": ("0.inner", "0.output.dense"), "0.output.more": ("0.output.more",), "1": ("1.f",)}
    assert_branches(network, names)


# --- children that never run


@block(used=residual_mlp, left=residual_mlp)
def with_a_left_child(m: Any, x: Tensor) -> Tensor:
    return m.used(x)


@block(used=residual_mlp, left=residual_mlp)
def with_a_child_for_a_flag(m: Any, x: Tensor, deep: bool = False) -> Tensor:
    return m.left(m.used(x)) if deep else m.used(x)


@block(used=residual_mlp, left=residual_mlp)
def with_a_child_for_long_inputs(m: Any, x: Tensor) -> Tensor:
    return m.left(m.used(x)) if x.shape[0] > 5 else m.used(x)


@block(used=residual_mlp, left=residual_mlp)
def with_a_child_for_short_inputs(m: Any, x: Tensor) -> Tensor:
    return m.used(x) if x.shape[0] > 5 else m.left(m.used(x))


def test_a_child_that_is_never_called() -> None:
    assert_branches(with_a_left_child(), {"used": ("used.f",)})
    reason = "it lies in left, which the forward of with_a_left_child does not call"
    assert discover(with_a_left_child()).rejected_adds == {"left": reason}


@pytest.mark.parametrize("make", [with_a_child_for_a_flag, with_a_child_for_long_inputs, with_a_child_for_short_inputs])
def test_a_child_that_another_call_may_run(make: Any) -> None:
    assert set(branches_of(make())) == {"used", "left"}


# --- branches are whole


@block(norm=partial(nn.LayerNorm, C), f=mlp, g=mlp)
def parallel(m: Any, x: Tensor) -> Tensor:
    y = m.norm(x)
    return x + m.f(y) + m.g(y)


@block(a=linear, b=linear, aux=linear)
def hidden_read_by_a_head(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    y = m.a(x).relu()
    return x + m.b(y), m.aux(y)


def test_what_is_cut_off_is_named() -> None:
    network = nn.Sequential(parallel(), residual_mlp())
    assert_branches(network, {"0.f": ("0.f",), "0.g": ("0.g",), "1": ("1.f",)})
    found = discover(network)
    assert found.cut_off == {"0.f": "norm, used elsewhere too", "0.g": "norm, used elsewhere too"}
    text = repr(ResidualDropPath(network))
    assert "cut off from branches, taken as trunk:\n    0.f: norm, used elsewhere too" in text
    assert discover(hidden_read_by_a_head()).cut_off == {"hidden_read_by_a_head": "a, used elsewhere too"}
    assert discover(residual_mlp()).cut_off == {}


@block(q=linear, out=linear)
def attention(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    weights = m.q(x).softmax(-1)
    return m.out(weights * x), weights


@block(attn=attention, mlp=mlp)
def parallel_with_weights(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    attended, weights = m.attn(x)
    return x + (m.mlp(x) + attended), weights


@block(attn=attention, project=linear, mlp=mlp)
def projected_with_weights(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    attended, weights = m.attn(x)
    x = x + m.project(attended)
    return x + m.mlp(x), weights


@block(norm=partial(nn.LayerNorm, C), a=linear, b=linear)
def body_with_preactivation(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    before = m.norm(x).relu()
    return m.b(m.a(before).relu()), before


@block(body=body_with_preactivation, skip=linear)
def preactivated(m: Any, x: Tensor) -> Tensor:
    x, before = m.body(x)
    return x + m.skip(before)


@block(body=body_with_preactivation)
def preactivated_identity(m: Any, x: Tensor) -> Tensor:
    y, _ = m.body(x)
    return x + y


@pytest.mark.parametrize(
    ("make", "found", "reason"),
    [
        (parallel_with_weights, {}, "attn computes its branch and returns more, which is used elsewhere"),
        (projected_with_weights, {"0": ("0.mlp",)}, "attn computes its branch and returns more"),
        (preactivated, {"0": ("0.body.a", "0.body.b")}, ""),
        (preactivated_identity, {"0": ("0.body",)}, ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_one_call_that_returns_the_branch_and_more(make: Any, found: Any, reason: str) -> None:
    @block(inner=make)
    def first(m: Any, x: Tensor) -> Any:  # nobody knows which of the values its caller reads
        return m.inner(x)

    network = nn.Sequential(make(), residual_mlp())
    assert_branches(network, {**found, "1": ("1.f",)})
    assert reason in reasons(network) and bool(reason) == bool(reasons(network))


# --- one call that scales, shifts and gates several branches


@block(norm=partial(nn.LayerNorm, C), modulation=partial(linear, C, 5 * C))
def adaptive_norm(m: Any, x: Tensor, c: Tensor) -> Any:
    scale, gate, later_shift, later_scale, later_gate = m.modulation(c.sigmoid()).chunk(5, -1)
    return m.norm(x) * scale, gate, later_shift, later_scale, later_gate


def adaptive_block(attend: Any) -> Any:
    @block(norm=adaptive_norm, attn=attend, norm2=partial(nn.LayerNorm, C, elementwise_affine=False), mlp=mlp)
    def forward(m: Any, x: Tensor, c: Tensor) -> Tensor:
        y, gate, shift, scale, later_gate = m.norm(x, c)
        x = x + gate * m.attn(y)
        return x + later_gate * m.mlp(m.norm2(x) * (1 + scale) + shift)

    @block(first=linear, blocks=lambda: nn.ModuleList(forward() for _ in range(2)), context=linear)
    def network(m: Any, x: Tensor) -> Tensor:
        c = m.context(x)
        x = m.first(x)
        for each in m.blocks:
            x = each(x, c)
        return x

    return network()


@pytest.mark.parametrize("with_example", [True, False])
def test_what_gates_several_branches_is_trunk(with_example: bool) -> None:
    found = discover(adaptive_block(mlp), torch.rand(2, C) if with_example else None)
    names = [f"blocks.{i}.{part}" for i in range(2) for part in ("attn", "mlp")]
    assert [branch.name for branch in found.branches] == names
    assert found.cut_off == {name: "norm, used elsewhere too" for name in names if name.endswith("attn")}


def test_a_gated_projection_is_no_branch_of_its_own() -> None:
    found = discover(adaptive_block(linear), torch.rand(2, C))
    assert [branch.name for branch in found.branches] == ["blocks.0", "blocks.1"]


# --- one call that feeds several sums


@block(f=partial(linear, C, 2 * C))
def forecaster(m: Any, y: Tensor) -> Any:
    return m.f(y).relu().chunk(2, -1)


@block(f=mlp, g=mlp)
def forecaster_by_two(m: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    return m.f(y), m.g(y)


@block(blocks=lambda: nn.ModuleList(forecaster_by_two() for _ in range(3)))
def n_beats(m: Any, y: Tensor) -> Tensor:
    residuals, forecast = y, y[:, -1:]
    for each in m.blocks:
        backcast, own = each(residuals)
        residuals = residuals - backcast
        forecast = forecast + own
    return forecast


@block(blocks=lambda: nn.ModuleList(forecaster_by_two() for _ in range(3)), out=linear)
def skip_outputs(m: Any, x: Tensor) -> Tensor:
    total = 0.0
    for each in m.blocks:
        own, skip = each(x)
        x = x + own
        total = total + skip
    return m.out(total)


@block(attn=mlp, split=partial(linear, C, 2 * C))
def joint_attention(m: Any, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    a, b = m.split(m.attn(x * c)).chunk(2, -1)
    return a, b


@block(attn=joint_attention)
def joint_block(m: Any, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    a, b = m.attn(x, c)
    return x + a, c + b


@block(attn=joint_attention, out=linear, out_c=linear)
def joint_block_with_projections(m: Any, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    a, b = m.attn(x, c)
    x = x + m.out(a)
    c = c + 0.5 * m.out_c(b)
    return x, c


def joint_network(make: Any) -> Any:
    @block(blocks=lambda: nn.ModuleList(make() for _ in range(2)), context=linear)
    def network(m: Any, x: Tensor) -> Tensor:
        c = m.context(x)
        for each in m.blocks:
            x, c = each(x, c)
        return x * c

    return network


JOINT = {
    "n_beats": (n_beats, "blocks.2"),
    "skip_outputs": (skip_outputs, "blocks.1"),
    "joint_block": (joint_network(joint_block), "attn"),
    "projections": (joint_network(joint_block_with_projections), "attn"),
}


@pytest.mark.parametrize("name", JOINT)
def test_one_call_that_feeds_several_sums(name: str) -> None:
    make, call = JOINT[name]
    make()(torch.rand(2, C))
    with pytest.raises(NoResidualBranchError):
        discover(make())
    network = nn.Sequential(residual_mlp(), make())
    assert_branches(network, {"0": ("0.f",)})
    assert f"one call of {call} feeds several sums, so none of them can drop it" in reasons(network)


@pytest.mark.parametrize("make", [joint_block, joint_block_with_projections], ids=lambda make: make.__name__)
def test_the_last_of_them_is_no_branch_either(make: Any) -> None:
    @block(first=residual_mlp, blocks=lambda: nn.ModuleList(make() for _ in range(3)), context=linear)
    def network(m: Any, x: Tensor) -> Tensor:
        c = m.context(m.first(x))
        for each in m.blocks:
            x, c = each(x, c)
        return x  # nobody reads the last `c`

    assert_branches(network(), {"first": ("first.f",)})
    last = discover(network()).rejected_adds
    assert any(name.startswith("blocks.2") and "attn" in reason for name, reason in last.items())
