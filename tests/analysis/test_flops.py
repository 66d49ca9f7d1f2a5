"""FLOPs of a forward and of its branches: closed forms, and what dropping a branch really saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residualdroppath import ResidualDropPath
from residualdroppath.analysis.flops import (
    CountsDisagreeError,
    Flops,
    attention_flops,
    count_flops,
    count_flops_under,
    flop_counter,
)
from residualdroppath.core.running.actions import drop

ROWS, WIDTH, SIDE, CHANNELS = 3, 6, 8, 4
LINEAR = 2 * ROWS * WIDTH * WIDTH  # two for each multiply-add
devices = pytest.mark.parametrize("device", ["cpu", "meta"])


class Block(nn.Module):
    """Two branches of one and two layers, a norm that counts nothing, dropout, and a shortcut without cost."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)
        self.short = nn.Linear(WIDTH, WIDTH)
        self.long = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.Dropout(0.5), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.short(self.norm(x))
        return x + self.long(x)


class ConvNet(nn.Module):
    """A stem, one block with a strided projection for a shortcut, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.block = ConvBlock()
        self.head = nn.Linear(2 * CHANNELS, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x)).mean((2, 3)))


class ConvBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(2 * CHANNELS)
        self.conv2 = nn.Conv2d(2 * CHANNELS, 2 * CHANNELS, 3, padding=1, groups=2)
        self.project = nn.Conv2d(CHANNELS, 2 * CHANNELS, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.project(x) + self.conv2(F.relu(self.bn(self.conv1(x)))))


class Conditional(nn.Module):
    """The way through depends on the shape: its first attempt at a forward is in vain."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH)
        self.more = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.fc(x)
        return self.more(x) if x.shape[0] > 1 else x


class Attention(nn.Module):
    """The queries are made of the input, keys and values are the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.to_queries = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.scaled_dot_product_attention(self.to_queries(x), x, x)


class Handed(nn.Module):
    """Hands its block a view of a parameter, as class tokens are handed."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, WIDTH))
        self.block = Block()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(self.token.expand(ROWS, -1))


class Sometimes(nn.Module):
    """Runs its second block only if told."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Block(), Block()

    def forward(self, x: Tensor, again: bool = False) -> Tensor:
        x = self.first(x)
        return self.second(x) if again else x


class AtRandom(nn.Module):
    """Another number of layers at each call, whatever the seed."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.calls = Block(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        for _ in range(self.calls):
            x = self.block(x)
        return x


def make(kind: Callable[[], nn.Module], device: str = "cpu") -> nn.Module:
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        return kind()


def rows(device: str = "cpu") -> Tensor:
    return torch.ones(ROWS, WIDTH, device=device)


@devices
def test_linear_layers_by_closed_form(device: str) -> None:
    model = make(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Block(), Block()), device)
    flops = count_flops(model, rows(device))
    assert flops == Flops(total=11 * LINEAR, branches=(LINEAR, 4 * LINEAR, LINEAR, 4 * LINEAR))
    assert flops.shares == (1 / 11, 4 / 11, 1 / 11, 4 / 11)


@devices
def test_convolutions_by_closed_form(device: str) -> None:
    flops = count_flops(make(ConvNet, device), torch.ones(ROWS, 3, SIDE, SIDE, device=device))
    pixels, halved = ROWS * SIDE**2, ROWS * SIDE**2 // 4
    stem = 2 * pixels * 9 * 3 * CHANNELS
    conv1 = 2 * halved * 9 * CHANNELS * 2 * CHANNELS
    conv2 = 2 * halved * 9 * CHANNELS * 2 * CHANNELS  # in two groups: each output reads half of the channels
    project = 2 * halved * CHANNELS * 2 * CHANNELS
    head = 2 * ROWS * 2 * CHANNELS * 5
    assert flops == Flops(total=stem + conv1 + conv2 + project + head, branches=(conv1 + conv2,))


@devices
@pytest.mark.parametrize("mask", ["none", "causal", "additive"])
@pytest.mark.parametrize("graph", [False, True])
def test_attention_by_closed_form(device: str, mask: str, graph: bool) -> None:
    batch, heads, length, width = 2, 3, 10, 8
    queries, keys, values = torch.ones(3, batch, heads, length, width, device=device, requires_grad=graph)
    options: dict[str, Any] = {"is_causal": mask == "causal"}
    if mask == "additive":
        options["attn_mask"] = torch.zeros(length, length, device=device)
    with flop_counter() as counter:
        F.scaled_dot_product_attention(queries, keys, values, **options)
    assert counter.get_total_flops() == 2 * 2 * batch * heads * length * length * width


@devices
def test_attention_of_fewer_heads_and_other_lengths(device: str) -> None:
    queries = torch.ones(2, 6, 10, 8, device=device)
    keys = torch.ones(2, 3, 12, 8, device=device)
    with flop_counter() as counter:
        F.scaled_dot_product_attention(queries, keys, keys, enable_gqa=True)
    assert counter.get_total_flops() == 2 * 2 * 2 * 6 * 10 * 12 * 8
    assert attention_flops(queries.shape, keys.shape, torch.Size([2, 3, 12, 5])) == 2 * 2 * 6 * 10 * 12 * (8 + 5)


@devices
def test_attention_in_a_branch(device: str) -> None:
    flops = count_flops(make(Attention, device), torch.ones(2, 3, 10, 8, device=device))
    own = 2 * 60 * 8 * 8 + 2 * 2 * 2 * 3 * 10 * 10 * 8
    assert flops == Flops(total=own, branches=(own,))


@devices
def test_attempt_in_vain_is_not_counted(device: str) -> None:
    assert count_flops(make(Conditional, device), rows(device)) == Flops(2 * LINEAR, (LINEAR,))
    assert count_flops(make(Conditional, device), rows(device)[:1]) == Flops(LINEAR // ROWS, (LINEAR // ROWS,))


@devices
def test_module_that_is_handed_a_view_of_a_parameter(device: str) -> None:
    assert count_flops(make(Handed, device), rows(device)).total == 5 * LINEAR


def test_branch_that_does_not_run_has_no_share() -> None:
    model = make(Sometimes)
    assert count_flops(model, rows()).branches == (LINEAR, 4 * LINEAR, None, None)
    assert count_flops(model, rows()).shares == (1 / 5, 4 / 5, None, None)
    assert count_flops(model, rows(), again=True).branches == (LINEAR, 4 * LINEAR) * 2


def test_forwards_that_differ_are_told() -> None:
    with pytest.raises(CountsDisagreeError, match="forwards differ"):
        count_flops(make(AtRandom), rows())


def test_nothing_to_count_has_no_share() -> None:
    assert Flops(0, (0, None)).shares == (None, None)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "own": (lambda: nn.Sequential(Block(), Conditional(), Block()), (WIDTH,)),
    "convolutions": (ConvNet, (3, SIDE, SIDE)),
    "attention": (lambda: nn.Sequential(Attention(), Attention()), (3, 10, 8)),
    "resnet10t": (lambda: timm.create_model("resnet10t"), (3, 32, 32)),
    "vit": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2), (3, 32, 32)),
    "swin": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=12, depths=(2, 2), num_heads=(2, 2)
        ),
        (3, 64, 64),
    ),
    "efficientnet": (lambda: timm.create_model("efficientnet_b0"), (3, 32, 32)),
}


SLOW = ("swin", "efficientnet")
every_network = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.full if name in ("swin", "efficientnet") else ()) for name in NETWORKS],
)


@every_network
def test_share_is_what_dropping_the_branch_saves(name: str) -> None:
    """And the meta device counts the same."""
    kind, shape = NETWORKS[name]
    rdp = ResidualDropPath(model := make(kind), 0.0)
    x = torch.ones(ROWS, *shape)
    flops = count_flops_under(rdp, x)
    count = len(rdp.branches)
    for index in range(count):
        with rdp.acting([drop if other == index else None for other in range(count)]), torch.no_grad():
            model(x)  # finds the way through conditions
            with flop_counter() as counter:
                model(x)
        assert flops.total - counter.get_total_flops() == flops.branches[index]
    assert count_flops(make(kind, "meta"), x.to("meta")) == flops


@every_network
def test_shares_sum_to_less_than_the_whole(name: str) -> None:
    kind, shape = NETWORKS[name]
    flops = count_flops(make(kind, "meta"), torch.ones(ROWS, *shape, device="meta"))
    assert all(0 < share for share in flops.shares if share is not None) and None not in flops.shares
    assert sum(own for own in flops.branches if own is not None) <= flops.total


def test_dropped_branch_does_not_run_and_the_plan_comes_back() -> None:
    model = make(lambda: nn.Sequential(Block(), Block()))
    rdp = ResidualDropPath(model, 0.5)
    called: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    frozen = [parameter.requires_grad for parameter in model.parameters()]
    plan = rdp.plan
    with rdp.acting([None, drop, None, None]):
        model(rows())
    assert "0.short" in called and "0.long.0" not in called and "1.long.0" in called
    assert rdp.plan == plan and [parameter.requires_grad for parameter in model.parameters()] == frozen
    called.clear()
    model(rows())
    assert {name for name in called if name.endswith(("short", "long"))} == {
        name for name in ("0.short", "0.long", "1.short", "1.long") if name not in plan.dropped
    }


def test_acting_wants_an_action_for_each_branch() -> None:
    rdp = ResidualDropPath(make(Block), 0.0)
    with pytest.raises(ValueError), rdp.acting([drop]):
        pass
    rdp.remove()
    with pytest.raises(RuntimeError, match="acting"), rdp.acting([None, None]):
        pass


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_left_as_it_was(fails: bool) -> None:
    model = make(Sometimes).eval()
    model.get_submodule("first").train()
    next(model.parameters()).requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    own = [dict(vars(module)) for module in model.modules()]
    random_state = torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError):
            count_flops(model, torch.ones(ROWS, WIDTH + 1))
    else:
        assert count_flops(model, rows(), again=True).branches == (LINEAR, 4 * LINEAR) * 2
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert ["forward" in vars(module) for module in model.modules()] == ["forward" in each for each in own]
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_iteration_in_force_stays(granularity: Any) -> None:
    model = make(lambda: nn.Sequential(Block(), Block()))
    rdp = ResidualDropPath(model, 0.5, granularity=granularity, freeze="stop_gradient")
    rdp.step()
    before = rdp.plan, [parameter.requires_grad for parameter in model.parameters()]
    assert count_flops_under(rdp, rows()).branches == (LINEAR, 4 * LINEAR) * 2
    assert (rdp.plan, [parameter.requires_grad for parameter in model.parameters()]) == before
