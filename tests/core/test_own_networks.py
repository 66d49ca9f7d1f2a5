"""A user's own blocks: for each way to write them, the branches found, their parameters, and the contracts."""

from __future__ import annotations

import copy
import math
import operator
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, NamedTuple

import pytest
import torch
from timm.models.rexnet import LinearBottleneck
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from contracts.option_pairs import one_row, row_of_each_mode
from contracts.subject import Subject
from contracts.walk import check_contracts
from residualdroppath import NoResidualBranchError, ResidualDropPath
from residualdroppath.core.running.actions import scale_by

from .finding import assert_branches, block, seeded, subject

WIDTH = 6


def linear() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH)


def norm() -> nn.Module:
    return nn.LayerNorm(WIDTH)


def batch_norm() -> nn.Module:
    return nn.BatchNorm1d(WIDTH)


def mlp() -> nn.Module:
    return nn.Sequential(linear(), nn.BatchNorm1d(WIDTH), nn.ReLU(inplace=True), linear())


def conv(kernel: int = 3, inputs: int = WIDTH, outputs: int = WIDTH, **options: Any) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def two_convs(**options: Any) -> nn.Module:
    return nn.Sequential(conv(**options), nn.BatchNorm2d(WIDTH), nn.ReLU(), conv(bias=False))


def vector() -> nn.Parameter:
    return nn.Parameter(torch.rand(WIDTH))


def scalar() -> nn.Parameter:
    return nn.Parameter(torch.zeros(1))


def layers(count: int, make: Callable[[], nn.Module] = linear) -> Callable[[], nn.Module]:
    return lambda: nn.ModuleList(make() for _ in range(count))


class Vectors(nn.Module):
    """Two of a block on float[rows, WIDTH]."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Linear(5, WIDTH)
        self.blocks = nn.Sequential(make(), make())
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


class Maps(nn.Module):
    """Two of a block on float[rows, WIDTH, height, width]."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 1)
        self.blocks = nn.Sequential(make(), make())
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@dataclass(frozen=True)
class Own:
    make: Callable[[], nn.Module]
    branches: dict[str, tuple[str, ...]]  # of one block: by suffix of the name, members
    network: type[nn.Module] = Vectors

    def members(self) -> dict[str, tuple[str, ...]]:
        return {
            f"blocks.{index}" + (f".{suffix}" if suffix else ""): tuple(f"blocks.{index}.{name}" for name in names)
            for index in range(2)
            for suffix, names in self.branches.items()
        }

    def build(self) -> nn.Module:
        return seeded(lambda: self.network(self.make))

    def inputs(self, seed: int) -> dict[str, Tensor]:
        shape = (5,) if self.network is Vectors else (3, 8, 8)
        return {"x": torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))}

    def subject(self) -> Subject:
        return subject(self.build, self.inputs, self.members())


TABLE: dict[str, Own] = {}


def own(branches: dict[str, tuple[str, ...]] | str, network: type[nn.Module] = Vectors, **parts: Any) -> Any:
    """A decorator: the function is the forward of a block, put down in the table."""
    of_block = {"": tuple(branches.split())} if isinstance(branches, str) else branches

    def decorate(forward: Callable[..., Any]) -> type[nn.Module]:
        made = block(**parts)(forward)
        TABLE[forward.__name__] = Own(made, of_block, network)
        return made

    return decorate


# --- one add


@own("f", f=mlp)
def plus(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x)


@own("f", f=mlp)
def plus_reversed(m: Any, x: Tensor) -> Tensor:
    return m.f(x) + x


@own("f", f=linear)
def plus_in_place(m: Any, x: Tensor) -> Tensor:
    x += m.f(torch.relu(x))  # whose backward needs its result, not x
    return x


@own("f", f=mlp)
def branch_plus_in_place(m: Any, x: Tensor) -> Tensor:
    out = m.f(x)
    out += x
    return out


@own("f", f=mlp)
def torch_add(m: Any, x: Tensor) -> Tensor:
    return torch.add(x, m.f(x))


@own("f", f=mlp)
def torch_add_keywords(m: Any, x: Tensor) -> Tensor:
    return torch.add(input=x, other=m.f(x))


@own("f", f=mlp)
def operator_add(m: Any, x: Tensor) -> Tensor:
    return operator.add(x, m.f(x))


@own("f", f=mlp)
def method_add(m: Any, x: Tensor) -> Tensor:
    return x.add(m.f(x))


@own("f", f=mlp)
def method_add_keyword(m: Any, x: Tensor) -> Tensor:
    return x.add(other=m.f(x))


@own("f", f=mlp)
def method_add_in_place(m: Any, x: Tensor) -> Tensor:
    return m.f(x).add_(x)


@own("f", f=linear)
def method_add_in_place_on_shortcut(m: Any, x: Tensor) -> Tensor:
    return (x * 2).add_(m.f(x))


@own("f", f=mlp)
def dunder_add(m: Any, x: Tensor) -> Tensor:
    return x.__add__(m.f(x))


@own("f", f=mlp, skip_add=torch.ao.nn.quantized.FloatFunctional)
def quantizable_add(m: Any, x: Tensor) -> Tensor:
    return m.skip_add.add(x, m.f(x))


@own("f", f=mlp)
def sum_of_list(m: Any, x: Tensor) -> Tensor:
    return sum([x, m.f(x)])  # pyright: ignore[reportReturnType]


@own("f", f=mlp)
def sum_from_shortcut(m: Any, x: Tensor) -> Tensor:
    return sum([m.f(x)], start=x)


@own("f", f=mlp)
def alpha(m: Any, x: Tensor) -> Tensor:
    return torch.add(x, m.f(x), alpha=0.5)


@own("f", f=mlp)
def alpha_of_method(m: Any, x: Tensor) -> Tensor:
    return x.add(m.f(x), alpha=0.5)


@own("f", f=mlp)
def alpha_in_place(m: Any, x: Tensor) -> Tensor:
    return (x * 1).add_(m.f(x), alpha=0.5)


@own("f", f=mlp)
def alpha_of_shortcut(m: Any, x: Tensor) -> Tensor:
    return torch.add(m.f(x), x, alpha=0.5)


# --- scaled


@own("f a", f=mlp, a=vector)
def scaled(m: Any, x: Tensor) -> Tensor:
    return x + m.a * m.f(x)


@own("f a", f=mlp, a=vector)
def scaled_after(m: Any, x: Tensor) -> Tensor:
    return m.f(x) * m.a + x


@own("f a", f=mlp, a=vector)
def scaled_in_place(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x).mul_(m.a)


@own("f a", f=linear, a=scalar)
def rezero(m: Any, x: Tensor) -> Tensor:
    return x + m.a * F.relu(m.f(x))


@own("f", f=mlp)
def scaled_by_number(m: Any, x: Tensor) -> Tensor:
    return x + 0.5 * m.f(x) / math.sqrt(2)


@own("f", f=mlp)
def sum_scaled(m: Any, x: Tensor) -> Tensor:
    return (x + m.f(x)) * 0.5**0.5


@own("f", f=mlp)
def deep_norm(m: Any, x: Tensor) -> Tensor:
    return F.layer_norm(1.7 * x + m.f(x), (WIDTH,))


@own("f b", f=mlp, a=vector, b=vector)
def scaled_on_both_sides(m: Any, x: Tensor) -> Tensor:
    return m.a * x + m.b * m.f(x)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((WIDTH,), 1e-4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


@own("norm f scale", norm=norm, f=mlp, scale=Scale)
def layer_scale(m: Any, x: Tensor) -> Tensor:
    return x + m.scale(m.f(m.norm(x)))


@own("f gate", f=mlp, gate=linear)
def gated(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x) * torch.sigmoid(m.gate(x))


@own("gate", gate=mlp)
def attended(m: Any, x: Tensor) -> Tensor:
    return x + x * torch.sigmoid(m.gate(x))


# --- several adds


@own({"attn": ("norm1", "attn"), "mlp": ("norm2", "mlp")}, norm1=norm, norm2=norm, attn=linear, mlp=mlp)
def two_adds(m: Any, x: Tensor) -> Tensor:
    x = x + m.attn(m.norm1(x))
    return x + m.mlp(m.norm2(x))


@own({"attn": ("attn",), "mlp": ("mlp",)}, norm1=norm, norm2=norm, attn=linear, mlp=mlp)
def two_adds_norms_after(m: Any, x: Tensor) -> Tensor:
    x = m.norm1(x + m.attn(x))
    return m.norm2(x + m.mlp(x))


@own({"a": ("a",), "b": ("b",), "c": ("c", "g")}, a=linear, b=mlp, c=linear, g=vector)
def three_adds(m: Any, x: Tensor) -> Tensor:
    x = x + m.a(x)
    x = torch.relu(m.b(x) + x)
    return torch.add(x, m.g * m.c(x))


@own("a b", a=linear, b=mlp)
def parallel_as_one(m: Any, x: Tensor) -> Tensor:
    return x + (m.a(x) + m.b(x))


@own({"a": ("a",), "b": ("b",)}, a=linear, b=mlp)
def parallel_as_two(m: Any, x: Tensor) -> Tensor:
    return x + m.a(x) + m.b(x)


@own({"a": ("a",), "b": ("b",)}, a=linear, b=mlp, norm=norm)
def parallel_after_one_norm(m: Any, x: Tensor) -> Tensor:
    y = m.norm(x)
    return x + m.a(y) + m.b(y)


@own({"a": ("a",), "b": ("b",)}, a=linear, b=linear)
def reversible(m: Any, x: Tensor) -> Tensor:
    first, second = x, x.flip(-1)
    first = first + m.a(second)
    second = second + m.b(first)
    return first * second


# --- activations


@own("norm1 f norm2 g", norm1=batch_norm, f=linear, norm2=batch_norm, g=linear)
def pre_activation(m: Any, x: Tensor) -> Tensor:
    out = m.f(F.relu(m.norm1(x), inplace=True))
    return m.g(F.relu(m.norm2(out))) + x


@own("f norm g", f=linear, norm=batch_norm, g=linear, act=partial(nn.ReLU, inplace=True))
def post_activation(m: Any, x: Tensor) -> Tensor:
    out = m.g(m.act(m.norm(m.f(x))))
    out += x
    return m.act(out)


@own("f", f=mlp)
def activation_shared_by_both_sides(m: Any, x: Tensor) -> Tensor:
    x = F.relu(x)
    return x + m.f(x)


@own("f", f=mlp)
def dropout_after_the_branch(m: Any, x: Tensor) -> Tensor:
    return x + F.dropout(m.f(x), 0.2, m.training)


@own("f", f=mlp, drop=partial(nn.Dropout, 0.2))
def dropout_on_the_shortcut(m: Any, x: Tensor) -> Tensor:
    return m.drop(x) + m.f(x)


# --- projections


@own("f", network=Maps, f=two_convs, shortcut=partial(conv, 1))
def projection(m: Any, x: Tensor) -> Tensor:
    return m.shortcut(x) + m.f(x)


@own("f", network=Maps, f=two_convs, shortcut=lambda: nn.Sequential(conv(1, bias=False), nn.BatchNorm2d(WIDTH)))
def projection_with_norm(m: Any, x: Tensor) -> Tensor:
    return F.relu(m.f(x) + m.shortcut(x))


@own("f", network=Maps, f=two_convs, shortcut=partial(conv, 1), norm=partial(nn.BatchNorm2d, WIDTH))
def projection_with_a_norm_of_the_block(m: Any, x: Tensor) -> Tensor:
    return F.relu(m.f(x) + m.norm(m.shortcut(x)))


@own(
    "f",
    network=Maps,
    f=partial(two_convs, stride=2),
    shortcut=lambda: nn.Sequential(nn.AvgPool2d(2), conv(1), nn.BatchNorm2d(WIDTH)),
)
def projection_with_pooling(m: Any, x: Tensor) -> Tensor:
    return F.relu(m.f(x) + m.shortcut(x), inplace=True)


@own("f", network=Maps, f=partial(two_convs, stride=2), shortcut=partial(conv, 1))
def projection_with_pooling_in_the_forward(m: Any, x: Tensor) -> Tensor:
    return m.f(x) + m.shortcut(F.avg_pool2d(x, 2))


@own(
    "f",
    network=Maps,
    f=two_convs,
    shortcut=lambda: nn.Sequential(conv(3, groups=WIDTH), conv(1), nn.BatchNorm2d(WIDTH)),
)
def projection_depthwise_and_pointwise(m: Any, x: Tensor) -> Tensor:
    return m.f(x) + m.shortcut(x)


@own("f", network=Maps, f=partial(two_convs, stride=2))
def pooled_shortcut(m: Any, x: Tensor) -> Tensor:
    return m.f(x) + F.max_pool2d(x, 2)


@own("f", network=Maps, f=partial(two_convs, stride=2))
def sliced_shortcut(m: Any, x: Tensor) -> Tensor:
    return m.f(x) + F.pad(x[:, :-1, ::2, ::2], (0, 0, 0, 0, 0, 1))


@own("f g", f=linear, g=linear, shortcut=partial(nn.Linear, WIDTH, WIDTH, bias=False))
def projection_linear(m: Any, x: Tensor) -> Tensor:
    return m.shortcut(x) + m.g(torch.tanh(m.f(x)))


@own("f", f=mlp, shortcut=nn.Identity)
def identity_module(m: Any, x: Tensor) -> Tensor:
    return m.shortcut(x) + m.f(x)


@own("f", f=mlp, shortcut=nn.Sequential)
def empty_shortcut(m: Any, x: Tensor) -> Tensor:
    return m.shortcut(x) + m.f(x)


# --- conditions


@own("f", network=Maps, f=two_convs)
def pads_odd_sizes(m: Any, x: Tensor) -> Tensor:
    if x.shape[-1] % 2:
        x = F.pad(x, (0, 1))
    return x + m.f(x)


@own("f", network=Maps, f=two_convs)
def pads_even_sizes(m: Any, x: Tensor) -> Tensor:
    if x.shape[-1] % 2 == 0:
        x = F.pad(x, (0, 1))
    if x.size(2) > 7 and x.dim() == 4:
        x = x[:, :, 1:]
    return x + m.f(x)


@own("f", f=mlp)
def asserts(m: Any, x: Tensor) -> Tensor:
    assert x.shape[-1] == WIDTH, f"expected {WIDTH} features, got {x.shape[-1]}"
    assert x.dim() == 2
    if x.shape[1] != WIDTH:
        raise ValueError("wrong width")
    return x + m.f(x)


@own("f", f=mlp)
def half_precision(m: Any, x: Tensor) -> Tensor:
    if x.dtype == torch.float16:
        return (x.float() + m.f(x.float())).half()
    return x + m.f(x)


@own("f", f=mlp)
def precision_chosen(m: Any, x: Tensor) -> Tensor:
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    return x + m.f(x.to(dtype))


@own("f", f=mlp)
def on_the_device(m: Any, x: Tensor) -> Tensor:
    if x.is_cuda or x.device.type == "mps":
        x = x.contiguous()
    return x + m.f(x)


@own("f", f=mlp)
def of_the_mode(m: Any, x: Tensor) -> Tensor:
    out = m.f(x)
    if m.training:
        out = out * 0.5
    return x + out


@own("f", f=mlp)
def shape_in_arithmetic(m: Any, x: Tensor) -> Tensor:
    rows, width = x.shape
    return x + m.f(x.reshape(rows, 2, width // 2).flatten(1)) / math.sqrt(width)


@own("f", f=mlp)
def only_where_shapes_agree(m: Any, x: Tensor) -> Tensor:
    out = m.f(x)
    return x + out if out.shape == x.shape else out


# --- helpers, arguments and returned values


def residual(x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    return x + f(x)


@own("f", f=mlp)
def helper_function(m: Any, x: Tensor) -> Tensor:
    return residual(x, m.f)


@own("f", f=mlp)
def a_lambda(m: Any, x: Tensor) -> Tensor:
    return (lambda y: y + m.f(y))(x)


@own("f", f=mlp)
def nested_function(m: Any, x: Tensor) -> Tensor:
    def add(out: Tensor) -> Tensor:
        return x + out

    return add(m.f(x))


@own({"fs.0": ("fs.0",), "fs.1": ("fs.1",), "fs.2": ("fs.2",)}, fs=layers(3))
def recursion(m: Any, x: Tensor) -> Tensor:
    def go(x: Tensor, index: int) -> Tensor:
        return x if index == len(m.fs) else go(x + m.fs[index](x), index + 1)

    return go(x, 0)


@own({"fs.0": ("fs.0",), "fs.1": ("fs.1",), "fs.2": ("fs.2",)}, fs=layers(3))
def loop(m: Any, x: Tensor) -> Tensor:
    for f in m.fs:
        x = x + f(x)
    return x


@own({"fs.0": ("fs.0", "norms.0"), "fs.1": ("fs.1", "norms.1")}, fs=layers(2, mlp), norms=layers(2, norm))
def loop_over_pairs(m: Any, x: Tensor) -> Tensor:
    for f, norm in zip(m.fs, m.norms, strict=True):
        x = f(norm(x)) + x
    return x


@own({"fs.0": ("fs.0",), "fs.1": ("fs.1",)}, fs=layers(2, mlp))
def loop_collecting(m: Any, x: Tensor) -> Tensor:
    states = [x]
    for f in m.fs:
        states.append(states[-1] + f(states[-1]))
    return states[-1] + states[0] * 0.1


@own({"fs.0": ("fs.0",), "fs.1": ("fs.1",)}, fs=layers(2, mlp))
def loop_summing_from_a_list(m: Any, x: Tensor) -> Tensor:
    return sum([f(x) for f in m.fs], start=x)


@own({"fs.a": ("fs.a",), "fs.b": ("fs.b",)}, fs=lambda: nn.ModuleDict({"a": mlp(), "b": linear()}))
def loop_over_dict(m: Any, x: Tensor) -> Tensor:
    for name in ("a", "b"):
        x = x + m.fs[name](x)
    return x


@own({"fs.a": ("fs.a",), "fs.b": ("fs.b",)}, fs=lambda: nn.ModuleDict({"a": mlp(), "b": linear()}))
def loop_over_items(m: Any, x: Tensor) -> Tensor:
    for _, f in m.fs.items():
        x = x + f(x)
    return x


@own({"f.0": ("f.0",), "f.3": ("f.3",)}, f=mlp)
def loop_over_sequential(m: Any, x: Tensor) -> Tensor:
    for f in (m.f[0], m.f[3]):
        x = x + f(x)
    return x


@own("weight bias", weight=lambda: nn.Parameter(torch.randn(WIDTH, WIDTH)), bias=vector)
def parameters_of_its_own(m: Any, x: Tensor) -> Tensor:
    return x + F.linear(x, m.weight, m.bias)


@own("weights.0 weights.1", weights=lambda: nn.ParameterList(torch.randn(WIDTH, WIDTH) for _ in range(2)))
def list_of_parameters(m: Any, x: Tensor) -> Tensor:
    return x + torch.relu(x @ m.weights[0]) @ m.weights[1]


@own("f", f=mlp)
def makes_zeros(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x + torch.zeros(x.shape, dtype=x.dtype))


@own("f", f=mlp)
def makes_new_zeros(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x + x.new_zeros(x.shape)) + torch.zeros_like(x)


@own("f", f=mlp)
def makes_full_like(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x) * torch.full_like(x, 0.5)


@own("f", f=mlp)
def makes_new_full(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x) * x.new_full((1,), 0.5)


@own("f", f=mlp)
def makes_a_range(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x * torch.arange(x.shape[-1], device=x.device))


@own("f", f=mlp)
def makes_a_range_of_known_length(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x) * torch.arange(WIDTH)


@own("f", f=mlp)
def makes_a_tensor(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x) * torch.tensor(0.5, dtype=x.dtype)


@own("f", f=mlp)
def fills_a_tensor(m: Any, x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    out[:, :3] = x[:, 3:]
    out[:, 3:] = x[:, :3]
    return x + m.f(out)


@own("f", f=mlp)
def draws_noise(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x + 0.1 * torch.randn_like(x) if m.training else x)


@own("f", f=mlp)
def draws_noise_of_a_shape(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x + 0.1 * torch.randn(x.shape, dtype=x.dtype) if m.training else x)


@own("f", f=mlp)
def draws_a_number(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x) * torch.rand(1, dtype=x.dtype) if m.training else x + m.f(x)


@own("f", f=mlp)
def draws_a_number_of_known_dtype(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x) * torch.rand(1) if m.training else x + m.f(x)


@own("f", f=mlp)
def makes_a_constant(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x) * torch.tensor([0.5])


def without_batch_norm() -> nn.Module:
    """Checkpointing runs it twice, which batch norm would count."""
    return nn.Sequential(linear(), nn.GELU(), linear())


@own("f", f=without_batch_norm)
def checkpointed(m: Any, x: Tensor) -> Tensor:
    return x + checkpoint(m.f, x, use_reentrant=False)  # pyright: ignore[reportOperatorIssue]


@own("f", f=without_batch_norm)
def checkpointed_in_training(m: Any, x: Tensor) -> Tensor:
    if m.training and torch.is_grad_enabled():
        return checkpoint(lambda y: y + m.f(y), x, use_reentrant=False)  # pyright: ignore[reportReturnType]
    return x + m.f(x)


def doubled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(forward)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        return 2 * forward(self, *args, **kwargs)

    return wrapper


@own("f", f=mlp)
@doubled
def decorated(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x)


def doubled_badly(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def wrapper(*args: Any, **kwargs: Any) -> Tensor:
        return 2 * forward(*args, **kwargs)

    wrapper.__name__ = forward.__name__
    return wrapper


@own("f", f=mlp)
@doubled_badly
def decorated_without_signature(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x)


@own("f", f=mlp)
def any_arguments(m: Any, *args: Tensor, **kwargs: Any) -> Tensor:
    (x,) = args
    return x + m.f(x)


def called_by(name: str, make: Any, branches: str) -> Any:
    """A block that is called by another one, which is no block itself."""

    def decorate(forward: Callable[..., Any]) -> None:
        members = tuple(f"{name}.{member}" for member in branches.split())
        outer = block(**{name: make})(forward)
        TABLE[forward.__name__] = Own(outer, {name: members})

    return decorate


@block(f=linear)
def masked(m: Any, x: Tensor, mask: Tensor | None = None, *, scale: float = 1.0, **kwargs: Any) -> Tensor:
    out = m.f(x) * scale
    return x + (out if mask is None else out * mask)


@called_by("inner", masked, "f")
def mask_by_position(m: Any, x: Tensor) -> Tensor:
    return m.inner(x, (x > 0).to(x))


@called_by("inner", masked, "f")
def mask_by_keyword(m: Any, x: Tensor) -> Tensor:
    return m.inner(x, mask=(x > 0).to(x), scale=0.5)


@block(f=mlp, shortcut=linear)
def masked_beside_a_projection(m: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    out = m.f(x)
    return m.shortcut(x) + (out if mask is None else out * mask)


@called_by("inner", masked_beside_a_projection, "f")
def mask_beside_a_projection(m: Any, x: Tensor) -> Tensor:
    return m.inner(x, mask=(x > 0).to(x))


@called_by("inner", masked, "f")
def mask_left_out(m: Any, x: Tensor) -> Tensor:
    return m.inner(x, scale=2.0)


@called_by("inner", masked, "f")
def further_keywords(m: Any, x: Tensor) -> Tensor:
    return m.inner(x, output_attentions=False, position=x.mean())


@called_by("inner", masked, "f")
def all_by_keyword(m: Any, x: Tensor) -> Tensor:
    return m.inner(mask=None, x=x)


@block(f=linear)
def keyword_only(m: Any, *, x: Tensor, y: Tensor) -> Tensor:
    return x + m.f(x * y)


@called_by("inner", keyword_only, "f")
def keywords_alone(m: Any, x: Tensor) -> Tensor:
    return m.inner(y=x.sin(), x=x)


@block(f=linear)
def returns_a_tuple(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    out = m.f(x)
    return x + out, out.mean()


@called_by("inner", returns_a_tuple, "f")
def rest_of_tuple_unread(m: Any, x: Tensor) -> Tensor:
    x, _ = m.inner(x)
    return x


@called_by("inner", returns_a_tuple, "f")
def first_of_tuple(m: Any, x: Tensor) -> Tensor:
    return m.inner(x)[0]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = linear()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.f(x), x.softmax(-1)


@own("attention", attention=Attention)
def branch_returns_a_tuple(m: Any, x: Tensor) -> Tensor:
    out, _ = m.attention(x)
    return x + out


@own("attention", attention=Attention)
def branch_returns_a_tuple_item(m: Any, x: Tensor) -> Tensor:
    return m.attention(x)[0] + x


class Named(NamedTuple):
    hidden: Tensor
    weights: Tensor | None = None


@dataclass
class Output:
    hidden: Tensor
    weights: Tensor | None = None


@block(f=linear)
def returns_a_dataclass(m: Any, x: Tensor) -> Output:
    return Output(hidden=x + m.f(x))


@called_by("inner", returns_a_dataclass, "f")
def dataclass_output(m: Any, x: Tensor) -> Tensor:
    return m.inner(x).hidden


@block(f=linear)
def returns_a_named_tuple(m: Any, x: Tensor) -> Named:
    return Named(x + m.f(x), x)


@called_by("inner", returns_a_named_tuple, "f")
def named_tuple_output(m: Any, x: Tensor) -> Tensor:
    return m.inner(x).hidden


@block(f=linear)
def returns_a_dict(m: Any, x: Tensor) -> dict[str, Tensor]:
    return {"x": x + m.f(x), "before": x}


@called_by("inner", returns_a_dict, "f")
def dict_output(m: Any, x: Tensor) -> Tensor:
    return m.inner(x)["x"]


@block(f=linear)
def takes_a_dict(m: Any, batch: dict[str, Tensor]) -> Tensor:
    return batch["x"] + m.f(batch["x"])


@called_by("inner", takes_a_dict, "f")
def dict_input(m: Any, x: Tensor) -> Tensor:
    return m.inner({"x": x})


@block(f=linear)
def takes_a_pair(m: Any, xs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x, mask = xs
    return x + m.f(x) * mask, mask


@called_by("inner", takes_a_pair, "f")
def pair_input(m: Any, x: Tensor) -> Tensor:
    return m.inner((x, (x > 0).to(x)))[0]


class AppendsToItsList(nn.Module):
    """As timm's VoVNet gathers its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([linear(), linear()])

    def forward(self, x: Tensor, gathered: list[Tensor]) -> Tensor:
        for layer in self.layers:
            gathered.append(x := layer(x).relu())
        return torch.cat(gathered, 1)


@own("f last", f=AppendsToItsList, last=lambda: nn.Linear(3 * WIDTH, WIDTH))
def gathered_in_a_list(m: Any, x: Tensor) -> Tensor:
    return x + m.last(m.f(x, [x]))


class WithProperty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = linear()
        self.scaling = 0.5

    @property
    def scale(self) -> float:
        return self.scaling / 2

    def branch(self, x: Tensor) -> Tensor:
        return self.f(x) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return self.add(x, self.branch(x))

    @staticmethod
    def add(x: Tensor, y: Tensor) -> Tensor:
        return x + y


TABLE["helper_methods_and_properties"] = Own(WithProperty, {"": ("f",)})


class Inherited(WithProperty):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


TABLE["inherited_forward"] = Own(Inherited, {"": ("f",)})


class WrapsBranch(nn.Module):
    """`Residual(fn)`, as many write it."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        return self.fn(x, **kwargs) + x


TABLE["residual_of_a_module"] = Own(lambda: WrapsBranch(mlp()), {"": ("fn",)})
TABLE["sequential_of_residuals"] = Own(
    lambda: nn.Sequential(WrapsBranch(mlp()), norm(), WrapsBranch(linear())), {"0": ("0.fn",), "2": ("2.fn",)}
)


def weight_normed() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))


TABLE["weight_norm"] = Own(lambda: WrapsBranch(weight_normed()), {"": ("fn",)})
TABLE["data_parallel"] = Own(lambda: nn.DataParallel(WrapsBranch(linear())), {"module": ("module.fn",)})


# Registered for its class: the branch is wider than the shortcut, which is added to its first channels.
TABLE["rexnet_of_timm"] = Own(
    lambda: nn.Sequential(LinearBottleneck(WIDTH, 2 * WIDTH, 1, exp_ratio=2.0), conv(1, inputs=2 * WIDTH)),
    {"0": ("0.conv_exp", "0.conv_dw", "0.conv_pwl")},
    Maps,
)


class Sequences(nn.Module):
    """Tokens of a vector each, through layers of `torch.nn` or of a user."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Linear(5, WIDTH)
        self.layers = make()
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.layers(x))


def encoder(norm_first: bool = False, **options: Any) -> Callable[[], nn.Module]:
    layer = partial(nn.TransformerEncoderLayer, WIDTH, 2, 8, batch_first=True, norm_first=norm_first)
    return lambda: nn.TransformerEncoder(layer(**options), 2, enable_nested_tensor=False)


@block(encoder=encoder(dropout=0.0), scale=scalar)
def causal(m: Any, x: Tensor) -> Tensor:
    mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
    return m.encoder(x, mask=mask, is_causal=True)


@block(encoder=encoder(norm_first=True, dropout=0.0), scale=scalar)
def padded(m: Any, x: Tensor) -> Tensor:
    padding = torch.zeros(x.shape[:2], dtype=torch.bool)
    padding[-1, -1] = True
    return m.encoder(x, src_key_padding_mask=padding)


@block(decoder=lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, 2, 8, 0.0, batch_first=True), 2))
def decoder(m: Any, x: Tensor) -> Tensor:
    return m.decoder(x, x.flip(1))


# Spellings of what others in the table do too: of these the branches alone are looked at, which is quick.
ALIKE = {"plus_reversed", "operator_add", "dunder_add", "scaled_after", "sum_from_shortcut", "projection_with_norm"}
ALIKE |= {"a_lambda", "nested_function", "loop_over_items", "loop_over_sequential", "first_of_tuple", "layer_scale"}
ALIKE |= {"branch_returns_a_tuple_item", "method_add", "identity_module", "parallel_as_two", "scaled_by_number"}
NUMBERS = {name: number for number, name in enumerate(TABLE)}


@pytest.mark.parametrize("name", sorted(ALIKE))
def test_branches(name: str) -> None:
    case = TABLE[name]
    assert_branches(case.build(), case.members())


@pytest.mark.parametrize("name", [name for name in TABLE if name not in ALIKE])
def test_contracts(name: str) -> None:
    check_contracts(TABLE[name].subject(), one_row(NUMBERS[name]))


@pytest.mark.full
@pytest.mark.parametrize("name", TABLE)
def test_contracts_under_options_of_each_mode(name: str) -> None:
    check_contracts(TABLE[name].subject(), row_of_each_mode(NUMBERS[name]))


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "encoder": encoder(),
    "encoder_without_dropout": encoder(dropout=0.0),
    "encoder_norm_first": encoder(norm_first=True, activation="gelu"),
    "causal": causal,
    "padded": padded,
    "decoder": decoder,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_layers_of_torch(name: str) -> None:
    """Given masks or not; PyTorch's stacks around them cannot always be traced, the layers have their branches."""
    build = partial(seeded, lambda: Sequences(ENCODERS[name]))
    stack = {"encoder": "layers.layers", "decoder": "layers.decoder.layers"}.get(
        name.split("_")[0], "layers.encoder.layers"
    )
    norm_first = name in ("encoder_norm_first", "padded")
    attention, feed_forward = ("norm1",) if norm_first else (), ("norm2",) if norm_first else ()
    members = {"self_attn": ("self_attn", *attention), "linear1": ("linear1", "linear2", *feed_forward)}
    if name == "decoder":
        members = {"self_attn": ("self_attn",), "multihead_attn": ("multihead_attn",), "linear1": members["linear1"]}
    branches = {
        f"{stack}.{index}.{suffix}": tuple(f"{stack}.{index}.{name}" for name in names)
        for index in range(2)
        for suffix, names in members.items()
    }

    def inputs(seed: int) -> dict[str, Tensor]:
        return {"x": torch.randn(4, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))}

    check_contracts(subject(build, inputs, branches), one_row(7 * list(ENCODERS).index(name)))


# --- what a graph would not do


@block(f=linear, g=linear)
def isinstance_(m: Any, x: Any) -> Tensor:
    if isinstance(x, Tensor):
        return x + m.f(x)
    return x[0] + m.g(x[0])


@block(f=mlp)
def no_grad_inside(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        mean = x.mean(-1, keepdim=True)
    return x + m.f(x - mean)


@torch.no_grad()
def mean_of(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


@block(f=mlp)
def no_grad_by_decorator(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x * mean_of(x))


@block(f=linear, g=linear)
def autocast_off_inside(m: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return x + m.g(torch.tanh(m.f(x.float())))


@block(f=linear, g=linear)
def autocast_on_inside(m: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.float16):
        return x + m.g(torch.tanh(m.f(x)))


@block(f=linear, g=linear)
@torch.autocast("cpu", enabled=False)
def autocast_by_decorator(m: Any, x: Tensor) -> Tensor:
    return x + m.g(torch.tanh(m.f(x.float())))


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return -gradient


@block(f=linear)
def own_backward(m: Any, x: Tensor) -> Tensor:
    return x + Reversed.apply(m.f(x))


NOT_IN_A_GRAPH = {
    "own_backward": own_backward,
    "isinstance": isinstance_,
    "no_grad_inside": no_grad_inside,
    "no_grad_by_decorator": no_grad_by_decorator,
    "autocast_off_inside": autocast_off_inside,
    "autocast_on_inside": autocast_on_inside,
    "autocast_by_decorator": autocast_by_decorator,
}


def run_plainly_and_through_states(model: nn.Module, inputs: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
    """Output and gradients of the model as it is, and with each residual add left to its unit, nothing dropped."""
    results = []
    for through_states in (False, True):
        own = copy.deepcopy(model)
        if through_states:
            for state in ResidualDropPath(own, 0.0)._enforcement.states:
                state.action = scale_by(1.0)
        x = inputs.clone().requires_grad_()
        output = own(x)
        output.float().square().sum().backward()
        assert x.grad is not None
        results.append((output, [x.grad, *(p.grad for p in own.parameters() if p.grad is not None)]))
    return results


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", [name for name in NOT_IN_A_GRAPH])
def test_what_a_graph_would_not_do(name: str, autocast: bool) -> None:
    """Such a block is left alone, or its graph does the same; never is something else computed."""
    torch.manual_seed(0)
    model = nn.Sequential(NOT_IN_A_GRAPH[name](), TABLE["plus"].make()).train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        (plain, gradients), (own, own_gradients) = run_plainly_and_through_states(model, torch.randn(4, WIDTH))
    assert plain.dtype == own.dtype and torch.equal(plain, own)
    for gradient, own_gradient in zip(gradients, own_gradients, strict=True):
        torch.testing.assert_close(own_gradient, gradient, rtol=0, atol=0)


@block(f=mlp)
def remembers(m: Any, x: Tensor) -> Tensor:
    out = m.f(x)
    m.last = out.detach()
    return x + out


@block(f=mlp)
def counts(m: Any, x: Tensor) -> Tensor:
    m.calls = getattr(m, "calls", 0) + 1
    return x + m.f(x)


class UpdatesABuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = mlp()
        self.register_buffer("average", torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        out = self.f(x)
        self.average = 0.9 * self.average + 0.1 * out.detach().mean(0)
        return x + out


SIDE_EFFECTS = {"remembers": remembers, "counts": counts, "updates_a_buffer": UpdatesABuffer}


@pytest.mark.parametrize("name", SIDE_EFFECTS)
def test_looking_for_branches_leaves_no_trace_in_a_module(name: str) -> None:
    model = nn.Sequential(SIDE_EFFECTS[name](), TABLE["plus"].make())
    before = {k: {**v, **v["_buffers"]} for k, m in model.named_modules() for v in [vars(m)]}
    ResidualDropPath(model).remove()
    after = {k: {**v, **v["_buffers"]} for k, m in model.named_modules() for v in [vars(m)]}
    assert {k: sorted(v) for k, v in before.items()} == {k: sorted(v) for k, v in after.items()}
    assert all(v[name] is before[k][name] for k, v in after.items() for name in v if name != "training")


# --- conditions that change from call to call


@pytest.mark.parametrize("name", ["pads_odd_sizes", "pads_even_sizes"])
def test_conditions_follow_each_call(name: str) -> None:
    case = TABLE[name]
    model, plain = case.build(), case.build()
    for state in ResidualDropPath(model, 0.0)._enforcement.states:
        state.action = scale_by(1.0)
    for size in (8, 7, 7, 8, 5, 8):
        x = torch.randn(2, 3, size, size, dtype=torch.float64)
        torch.testing.assert_close(model(x), plain(x), rtol=0, atol=1e-12)


# --- what cannot be traced: the error says so


@block(f=linear)
def reads_a_value(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x) if x.max().item() > 0 else x


@block(f=linear)
def depends_on_a_value(m: Any, x: Tensor) -> Tensor:
    if x.sum() > 0:
        x = x + m.f(x)
    return x


@block(f=linear)
def loops_over_rows(m: Any, x: Tensor) -> Tensor:
    return torch.stack([row + m.f(row) for row in x])


@block(f=linear)
def loops_over_a_length(m: Any, x: Tensor) -> Tensor:
    for _ in range(x.shape[0]):
        x = x + m.f(x)
    return x


@block(f=linear)
def leaves_torch(m: Any, x: Tensor) -> Tensor:
    return x + torch.from_numpy(m.f(x).detach().numpy())


@block(f=linear)
def rolls_dice(m: Any, x: Tensor) -> Tensor:
    return x + m.f(x) if random.random() < 2 else x


@block(f=linear)
def assigns_in_a_list(m: Any, xs: Any) -> Any:
    xs[0] = xs[0] + m.f(xs[1])
    return xs


UNTRACEABLE = [reads_a_value, depends_on_a_value, loops_over_rows, loops_over_a_length, leaves_torch]
UNTRACEABLE += [rolls_dice, assigns_in_a_list]


@pytest.mark.parametrize("make", UNTRACEABLE, ids=lambda make: make.__name__)
def test_what_cannot_be_traced_is_told(make: type[nn.Module]) -> None:
    with pytest.raises(NoResidualBranchError) as raised:
        ResidualDropPath(nn.Sequential(make(), linear()))
    assert f"Could not be traced: 0 ({make.__name__}: " in str(raised.value)
    assert f"residualdroppath.register_block({make.__name__}, lambda block, add, " in str(raised.value)
    rdp = ResidualDropPath(nn.Sequential(TABLE["plus"].make(), make()))
    assert [branch.name for branch in rdp.branches] == ["0"]
    assert f"not traced, taken as trunk:\n    1: {make.__name__}: " in repr(rdp)


@block(f=mlp)
def minus(m: Any, x: Tensor) -> Tensor:
    return x - m.f(x)


@block(f=mlp, gamma=vector)
def addcmul(m: Any, x: Tensor) -> Tensor:
    return torch.addcmul(x, m.gamma, m.f(x))


@pytest.mark.parametrize("make", [minus, addcmul], ids=lambda make: make.__name__)
def test_what_is_no_add_is_not_found(make: type[nn.Module]) -> None:
    with pytest.raises(NoResidualBranchError, match="`residualdroppath.register_block"):
        ResidualDropPath(Vectors(make))


@block(f=linear)
def decides_by_values(m: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    out = m.f(x)
    if mask is not None and mask.any():
        out = out * mask
    return x + out


def test_a_call_that_decides_by_values_is_followed() -> None:
    @block(inner=decides_by_values)
    def outer(m: Any, x: Tensor) -> Tensor:
        return m.inner(x, (x > 0).to(x))

    model, plain = outer(), outer()
    plain.load_state_dict(model.state_dict())
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    for x in (torch.randn(4, WIDTH), -torch.ones(4, WIDTH), torch.ones(4, WIDTH)):
        assert rdp.plan.dropped and torch.equal(model(x), x)
        with rdp.paused():
            assert torch.equal(model(x), plain(x))


def test_scripted_modules_are_trunk() -> None:
    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.f(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(Scripted(), torch.rand(2, WIDTH))
    rdp = ResidualDropPath(nn.Sequential(TABLE["plus"].make(), scripted))  # pyright: ignore[reportArgumentType]
    assert [branch.name for branch in rdp.branches] == ["0"]
    assert list(rdp.discovery.untraceable) == ["1"]


class EndsScripted(nn.Module):
    """A branch whose last part is compiled by torch.jit, or not."""

    def __init__(self, scripted: bool) -> None:
        super().__init__()
        last = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
        self.first = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.last = torch.jit.script(last) if scripted else last

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.first(x))


def ends_scripted(scripted: bool) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is going away
        return seeded(lambda: nn.Sequential(EndsScripted(scripted), EndsScripted(scripted)))


@pytest.mark.usefixtures("factors_stay_outside")
@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_scripted_parts_of_a_branch_are_as_others(granularity: Any) -> None:
    models = [ends_scripted(scripted) for scripted in (True, False)]
    options: Any = {"rate_over_depth": "uniform", "freeze": "stop_gradient", "granularity": granularity}
    rdps = [ResidualDropPath(model, 0.5, **options) for model in models]
    inputs = torch.randn(5, WIDTH, dtype=torch.float64)
    for _ in range(6):
        outputs = [model(inputs) for model in models]
        torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
        gradients = []
        for model, output, rdp in zip(models, outputs, rdps, strict=True):
            output.square().sum().backward()
            gradients.append([parameter.grad for parameter in model.parameters()])
            model.zero_grad()
            rdp.step()
        for own, expected in zip(*gradients, strict=True):
            assert (own is None) == (expected is None)
            torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-12)
    for own, expected in zip(*(model.buffers() for model in models), strict=True):
        torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("frozen_norm", ["batch", "running"])
def test_norms_of_scripted_parts_must_update(frozen_norm: Any) -> None:
    model = ends_scripted(True)
    with pytest.raises(ValueError, match=r"compiled by torch.jit \(0.last.1\), got "):
        ResidualDropPath(model, 0.5, frozen_norm=frozen_norm)
    ResidualDropPath(model, 0.5)


class NormBeforeACondition(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.f = nn.BatchNorm1d(WIDTH), linear()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        if y.shape[0] % 2:  # of what was computed: known when the norm has run
            y = y * 2
        return y + self.f(y)


def test_an_attempt_under_other_conditions_leaves_statistics_alone() -> None:
    model = nn.Sequential(NormBeforeACondition()).double()
    plain = copy.deepcopy(model)
    rdp = ResidualDropPath(model, 0.5)
    with rdp.acting([scale_by(1.0)]):
        for rows in (4, 5, 5, 4):
            x = torch.randn(rows, WIDTH, dtype=torch.float64)
            torch.testing.assert_close(model(x), plain(x))
    for buffer, expected in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected)
