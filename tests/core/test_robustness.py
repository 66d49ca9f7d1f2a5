"""DESIGN.md section 5: the rewritten forward holds nothing of its own."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from residualdroppath import ResidualDropPath
from residualdroppath.core.reference import reference_iteration
from residualdroppath.core.running.actions import drop, scale_by

from .stepping import Trace, assert_close, assert_equal, buffers_of, forward_backward, sgd_step
from .tiny_blocks import WIDTH, OptionalMask, OwnAdd, PostActivationIdentity, Stack
from .tiny_models import TinyModel, every_model, every_model_in_full_but, some_models


def with_one_dropped(model: nn.Module, **options: Any) -> ResidualDropPath:
    """A plan that drops one branch of several, and scales those kept by 2."""
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", schedule=(1, 0), **options)
    while len(rdp.plan.dropped) != 1:
        rdp.step()
    return rdp


def kept_block(rdp: ResidualDropPath) -> Any:
    return next(branch.block for branch in rdp.branches if branch.name in rdp.plan.kept)


def dropped_block(rdp: ResidualDropPath) -> Any:
    return next(branch.block for branch in rdp.branches if branch.name in rdp.plan.dropped)


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


@some_models("own_add")
def test_replaced_children_are_called(tiny: TinyModel) -> None:
    """As `convert_sync_batchnorm` replaces them."""
    model = tiny.build()
    rdp = with_one_dropped(model)
    x = rows(5, WIDTH)
    block = kept_block(rdp)
    block(x)  # the rewritten forward now exists
    block.branch[1] = nn.Identity()
    assert_close(block(x), x + 2 * block.branch(x), "after a change inside the branch")
    block.branch = nn.Linear(WIDTH, WIDTH).double()
    assert_close(block(x), x + 2 * block.branch(x), "after replacing the branch")


@some_models("layer_scale", "timm_vit", "timm_basic")
def test_parameters_assigned_by_load_state_dict_are_used(tiny: TinyModel) -> None:
    model, plain = tiny.build(), tiny.build()
    with_one_dropped(model)
    plain_rdp = with_one_dropped(plain)
    model(tiny.inputs())
    state = {name: value + 0.1 * torch.ones_like(value) for name, value in plain.state_dict().items()}
    model.load_state_dict(state, assign=True)
    plain.load_state_dict(state)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    actual, expected = forward_backward(model, tiny.inputs()), forward_backward(plain, tiny.inputs())
    assert_equal(actual.output, expected.output, "output")
    assert [n for n, g in actual.gradients.items() if (g is None) != (expected.gradients[n] is None)] == []
    assert plain_rdp.plan.dropped


@some_models("layer_scale")
def test_parameters_assigned_while_frozen_get_their_flags_back(tiny: TinyModel) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    rdp.step()
    model.load_state_dict(tiny.build().state_dict(), assign=True)
    rdp.step()
    assert all(parameter.requires_grad for parameter in model.parameters())


class FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)
        self.rate = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.dropout(self.f(x), self.rate, training=self.training)


def test_functional_dropout_follows_the_mode_of_the_block() -> None:
    model = Stack(FunctionalDropout).double().train()
    rdp = with_one_dropped(model)
    block, x = kept_block(rdp), rows(50, WIDTH)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert_equal(block(x), x + block.f(x))  # neither dropout nor scale
    block.train()
    assert not torch.equal(block(x), block(x))
    block.rate = 0.0
    assert_close(block(x), x + 2 * block.f(x), "rate changed after construction")


class Attributes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)
        self.extra: nn.Module | None
        self.register_module("extra", None)
        self.alpha = 1.0
        self.pair = (1.0, 0.0)
        self.function = torch.tanh

    def forward(self, x: Tensor) -> Tensor:
        out = self.function(self.f(x)) * self.alpha * self.pair[0] + self.pair[1]
        if self.extra is not None:
            out = self.extra(out)
        return x + out


@pytest.mark.parametrize(
    ("name", "value"),
    [("alpha", 3.0), ("pair", (2.0, 0.5)), ("function", torch.relu), ("extra", nn.Linear(WIDTH, WIDTH).double())],
    ids=["alpha", "pair", "function", "extra"],
)
def test_attributes_changed_after_construction_are_honoured(name: str, value: Any) -> None:
    rdp = with_one_dropped(Stack(Attributes).double().train())
    block, x = kept_block(rdp), rows(5, WIDTH)
    before = block(x)
    setattr(block, name, value)
    plain = Attributes().double()
    setattr(plain, name, value)
    plain.load_state_dict(block.state_dict())
    assert_close(block(x), x + 2 * (plain(x) - x), "output")
    assert not torch.equal(block(x), before)


class MixedDtypes(nn.Module):
    """`x += s` keeps the dtype of x where `x + s` would promote it."""

    def __init__(self, inplace: bool):
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        out = self.f(x)
        if self.inplace:
            out += x
            return out
        return out + x


@pytest.mark.parametrize(("inplace", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_add_keeps_its_dtype_under_autocast(inplace: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Stack(lambda: MixedDtypes(inplace))
    rdp = with_one_dropped(model)
    x = torch.randn(5, WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert kept_block(rdp)(x).dtype == dtype
        plan = rdp.plan
        rdp.step()
        while plan.dropped[0] in rdp.plan.dropped:
            rdp.step()
        block = cast(nn.Module, next(b.block for b in rdp.branches if b.name == plan.dropped[0]))
        block(x)  # the dtype of the sum is known once the branch has run
        while plan.dropped[0] not in rdp.plan.dropped:
            rdp.step()
        assert_equal(block(x), x.to(dtype))
        out = model(torch.randn(5, 5))
    out.float().square().mean().backward()


class Transposed(nn.Module):
    """The branch has another layout than the shortcut, and comes first in the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x.transpose(1, 2)).transpose(1, 2) + x


def test_a_scaled_add_keeps_the_layout_of_the_sum() -> None:
    torch.manual_seed(0)
    block, x = Transposed(), torch.randn(2, WIDTH, WIDTH)
    plain = block(x)
    rdp = ResidualDropPath(block, 0.0)
    with rdp.acting([scale_by(3.0)]):
        scaled = block(x)
    assert scaled.stride() == plain.stride() != x.stride()  # noise drawn like it has the same values
    torch.testing.assert_close(scaled, x + 3 * (plain - x))


@pytest.mark.parametrize("freeze", ["parameters", "stop_gradient"])
@some_models("own_add", "timm_vit", "projection")
def test_training_under_autocast(tiny: TinyModel, freeze: str) -> None:
    model = tiny.build().float()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", freeze=freeze)  # pyright: ignore
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(tiny.inputs().float())
        assert output.dtype == torch.bfloat16
        output.float().square().mean().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert gradients and all(g.dtype == torch.float32 and bool(g.isfinite().all()) for g in gradients)
        model.zero_grad()
        rdp.step()


def test_an_activation_after_a_dropped_branch_does_not_overwrite_the_blocks_input() -> None:
    model = Stack(PostActivationIdentity).double().train()
    rdp = with_one_dropped(model)
    block = dropped_block(rdp)
    leaf = rows(5, WIDTH).requires_grad_()
    x = leaf * 1
    saved = torch.sigmoid(x)  # another reader, and one that has saved its own output
    y = block(x)
    assert_equal(y, torch.relu(leaf), "output")
    assert_equal(x, leaf * 1, "input of the block")
    (y.sum() + saved.sum() + x.square().sum()).backward()
    expected = (leaf > 0).double() + saved * (1 - saved) + 2 * leaf
    assert leaf.grad is not None
    assert_close(leaf.grad, expected.detach(), "gradient")


class OwnActivation(nn.ReLU):
    """It works in place whatever its attribute says."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.relu_(input)


class OwnActivationBehindAnAdd(PostActivationIdentity):
    def __init__(self) -> None:
        super().__init__()
        self.act = OwnActivation(inplace=True)


class ActivationInTheNextBranch(PostActivationIdentity):
    def __init__(self) -> None:
        super().__init__()
        self.fc2 = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.bn(self.fc(x))
        return y + self.fc2(self.act(y))


class CountsClones(TorchDispatchMode):
    clones = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.clones += func is torch.ops.aten.clone.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("block_type", "clones"),
    [(PostActivationIdentity, 0), (OwnActivationBehindAnAdd, 1), (ActivationInTheNextBranch, 1)],
)
def test_what_is_handed_on_is_copied_only_where_it_may_be_overwritten(block_type: type, clones: int) -> None:
    block = block_type().double().train()
    rdp = ResidualDropPath(nn.Sequential(block), 0.5)
    x = rows(5, WIDTH)
    before, others = x.clone(), [scale_by(1.0)] * (len(rdp.branches) - 1)
    with rdp.acting([drop, *others]), CountsClones() as counted:
        output = block(x)
    assert counted.clones == clones
    assert_equal(x, before, "input of the block")
    with rdp.acting(
        [lambda add_point, shortcut, inputs: add_point.add(shortcut, add_point.run(*inputs) * 0.0), *others]
    ):
        assert_equal(output, block(x), "output")
    assert block.act.inplace


class CountsReLUs(TorchDispatchMode):
    forward = backward = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.forward += func in (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
        self.backward += func is torch.ops.aten.threshold_backward.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("before", "runs"),
    [(nn.ReLU(), 1), (nn.ReLU(inplace=True), 1), (nn.Identity(), 1), (nn.Sequential(nn.ReLU(), nn.Tanh()), 2)],
    ids=str,
)
@pytest.mark.parametrize("hook", [False, True])
def test_what_is_rectified_is_not_rectified_again(before: nn.Module, runs: int, hook: bool) -> None:
    """Nor when handed on by several blocks; unless somebody looks at what the activation does."""
    blocks = nn.Sequential(PostActivationIdentity(), PostActivationIdentity()).double().train()
    rdp = ResidualDropPath(blocks, 0.5)
    if hook:
        for block in blocks:
            block.get_submodule("act").register_forward_hook(lambda *_: None)
        runs = 2 + sum(isinstance(module, nn.ReLU) for module in before.modules())
    own, expected = (rows(5, WIDTH).requires_grad_() for _ in range(2))
    with rdp.acting([drop, drop]), CountsReLUs() as counted:
        output = blocks(before(own * 1))
        output.sum().backward()
    assert counted.forward == counted.backward == runs
    correct = torch.relu(before(expected * 1))
    assert_equal(output, correct, "output")
    correct.sum().backward()
    assert_equal(own.grad, expected.grad, "gradient")


class NextLayerOverwrites(nn.Module):
    """The block hands its sum on as it is; what comes next, outside of it, works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.block = OwnAdd()
        self.act = nn.ReLU(inplace=True)
        self.block2 = OwnAdd()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.stem(x)
        return self.block2(self.act(self.block(stem))), stem


def test_an_activation_outside_the_block_does_not_overwrite_its_input() -> None:
    model = NextLayerOverwrites().double().train()
    rdp = ResidualDropPath(model, 1 - 1e-9, rate_over_depth="uniform")
    assert rdp.plan.dropped == ("block", "block2")
    x = rows(5, WIDTH)
    output, stem = model(x)
    assert_equal(stem, model.stem(x), "what the block was given")
    assert (stem < 0).any()
    assert_equal(output, torch.relu(stem), "output")


class MakesATensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x) * torch.rand(1, dtype=torch.float64)


def test_a_tensor_that_a_forward_draws_is_drawn_at_every_call() -> None:
    model = nn.Sequential(MakesATensor(), MakesATensor()).double()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    assert [branch.name for branch in rdp.branches] == ["0", "1"]
    for state in rdp._enforcement.states:
        state.action = scale_by(1.0)
    inputs = torch.rand(2, WIDTH, dtype=torch.float64)
    assert not torch.equal(model(inputs), model(inputs))


class DrawsANumber(MakesATensor):
    def forward(self, x: Tensor) -> Tensor:
        if torch.rand(1).item() < 0.5:
            return x
        return x + self.f(x)


@pytest.mark.parametrize(
    ("block", "reason"),
    [(DrawsANumber, "only a call shows")],
)
def test_what_tracing_would_turn_into_a_constant_is_not_traced(block: type[nn.Module], reason: str) -> None:
    model = nn.Sequential(OwnAdd(), OwnAdd(), block()).double()
    before = [set(vars(module)) for module in model.modules()]
    state = torch.random.manual_seed(0).get_state()
    rdp = ResidualDropPath(model, 0.5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [branch.name for branch in rdp.branches] == ["0", "1"]
    assert reason in rdp.discovery.untraceable["2"]
    rdp.remove()
    assert [set(vars(module)) for module in model.modules()] == before


@every_model_in_full_but("own_add", "two_adds", "projection", "dropout", "timm_basic")
def test_checkpointing(tiny: TinyModel) -> None:
    """Blocks run a second time in backward: under the same plan, with the same random numbers."""
    if tiny.name == "inplace_add":
        pytest.skip("a block that overwrites its input cannot run a second time, plain or not")
    model, other = tiny.build(), tiny.build()
    rdps = [ResidualDropPath(m, 0.5, rate_over_depth="uniform", freeze="stop_gradient") for m in (model, other)]
    for block in {branch.block: None for branch in rdps[0].branches}:
        # Around the forward under the method, as activation checkpointing wraps it.
        inner = block.forward
        block.forward = lambda *args, inner=inner, **kwargs: checkpoint(inner, *args, use_reentrant=False, **kwargs)
    for iteration in range(2):
        actual, expected = (forward_backward(m, tiny.inputs(seed=iteration)) for m in (model, other))
        assert_equal(actual.output, expected.output, "output")
        for name, gradient in expected.gradients.items():
            assert_equal(actual.gradients[name], gradient, name)
        for m, rdp in zip((model, other), rdps, strict=True):
            m.zero_grad()
            rdp.step()


def test_optional_arguments() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(OptionalMask() for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    rdp = with_one_dropped(Net().double().train())
    block, dropped, x = kept_block(rdp), dropped_block(rdp), rows(5, WIDTH)
    mask = (rows(5, WIDTH) > 0).double()
    for _ in range(2):  # the second time from what was kept of the first
        assert_close(block(x), x + 2 * block.f(x), "no argument")
        assert_close(block(x, mask), x + 2 * mask * block.f(x), "by position")
        assert_close(block(x, scale=3.0), x + 6 * block.f(x), "a number")
        assert_close(block(x=x, scale=3.0, mask=mask), x + 6 * mask * block.f(x), "all by keyword")
        assert_close(block(x, None, 0.5), x + block.f(x), "the default itself")
        assert_equal(dropped(x, mask, scale=3.0), x)


class Arguments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, *, scale: float = 1.0, **others: Any) -> Tensor:
        return x + scale * self.f(x)


def test_keyword_only_and_variable_arguments() -> None:
    rdp = with_one_dropped(Stack(Arguments).double().train())
    block, x = kept_block(rdp), rows(5, WIDTH)
    assert_close(block(x, scale=3.0, unused=1), x + 6 * block.f(x), "output")


@every_model
def test_switching_between_modes_leaves_no_trace(tiny: TinyModel) -> None:
    model, other = tiny.build(), tiny.build()
    for m in (model, other):
        rdp = ResidualDropPath(m, 0.5, rate_over_depth="uniform", frozen_norm="running")
        rdp.step()
    model.eval()
    model(tiny.inputs(seed=1))
    model.train()
    actual, expected = forward_backward(model, tiny.inputs()), forward_backward(other, tiny.inputs())
    assert_equal(actual.output, expected.output, "output")
    for name, gradient in expected.gradients.items():
        assert_equal(actual.gradients[name], gradient, name)


@some_models("timm_basic")
def test_a_frozen_block_in_evaluation_mode_is_left_alone(tiny: TinyModel) -> None:
    """The usual fine-tuning habit of `block.eval()` inside a model in training mode."""
    model = tiny.build()
    rdp = ResidualDropPath(model, 1 - 1e-9, rate_over_depth="uniform")
    block = dropped_block(rdp).eval()
    plain = tiny.build().get_submodule(rdp.plan.dropped[0]).eval()
    x = rows(2, 64, 4, 4)
    assert_equal(block(x.clone()), plain(x.clone()), "output")


def assert_same(actual: Trace, expected: Trace) -> None:
    assert_equal(actual.output, expected.output, "output")
    assert [name for name, g in actual.gradients.items() if (g is None) != (expected.gradients[name] is None)] == []
    for name, gradient in expected.gradients.items():
        assert_equal(actual.gradients[name], gradient, name)


@pytest.fixture
def calls_of_sync_batch_norm(monkeypatch: pytest.MonkeyPatch) -> list[nn.SyncBatchNorm]:
    """Lets `SyncBatchNorm` run on the CPU, as the batch norm of one process that it then is, and lists its calls."""
    calls: list[nn.SyncBatchNorm] = []

    def forward(self: nn.SyncBatchNorm, input: Tensor) -> Tensor:
        calls.append(self)
        return nn.modules.batchnorm._BatchNorm.forward(self, input)

    monkeypatch.setattr(nn.SyncBatchNorm, "forward", forward)
    return calls


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"freeze": "stop_gradient"},
        {"freeze": "stop_gradient", "granularity": "sample"},
        {"frozen_norm": "batch"},
        {"frozen_norm": "running", "freeze": "stop_gradient"},
    ],
    ids=str,
)
@pytest.mark.parametrize("converted_at", [0, 1, 2])
@some_models("timm_basic", "timm_bottleneck_d", "two_adds", "post_activation")
@pytest.mark.pairs
def test_convert_sync_batchnorm(
    tiny: TinyModel, converted_at: int, options: dict[str, Any], calls_of_sync_batch_norm: list[nn.SyncBatchNorm]
) -> None:
    """After construction, before or after rewritten forwards exist and norms are frozen."""
    models = [tiny.build(), tiny.build()]
    rdps = [ResidualDropPath(m, 0.5, rate_over_depth="uniform", **options) for m in models]
    num_norms = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in models[0].modules())
    for iteration in range(4):
        if iteration == converted_at:
            assert nn.SyncBatchNorm.convert_sync_batchnorm(models[0]) is models[0]
            if "frozen_norm" in options:  # a norm that was replaced is not known to be frozen
                rdps[0].refresh()
        actual, expected = (forward_backward(m, tiny.inputs(seed=iteration)) for m in models)
        assert_same(actual, expected)
        assert_equal(buffers_of(models[0]), buffers_of(models[1]), "buffers")
        for m, rdp in zip(models, rdps, strict=True):
            sgd_step(m)
            rdp.step()
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in models[0].modules()) == num_norms
    assert len(set(calls_of_sync_batch_norm)) == num_norms


@some_models("timm_basic")
def test_norms_that_were_converted_stay_frozen(
    tiny: TinyModel, calls_of_sync_batch_norm: list[nn.SyncBatchNorm]
) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", frozen_norm="batch")
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
    rdp.step()
    stem, before = model.get_submodule("bn1"), buffers_of(model)["bn1.running_mean"]
    model(tiny.inputs())
    assert stem in calls_of_sync_batch_norm
    assert torch.equal(buffers_of(model)["bn1.running_mean"], before)


@pytest.mark.parametrize("options", [{}, {"freeze": "stop_gradient", "frozen_norm": "running"}], ids=str)
@pytest.mark.parametrize("as_parameters", [False, True])
@some_models("timm_basic", "timm_vit", "layer_scale", "two_adds")
@pytest.mark.pairs
def test_parameters_assigned_in_mid_cycle(tiny: TinyModel, as_parameters: bool, options: dict[str, Any]) -> None:
    """What was frozen stays so until the cycle ends, and learns after it, as if the values had been copied."""
    models = [tiny.build(), tiny.build()]
    rdps = [ResidualDropPath(m, 0.5, rate_over_depth="uniform", **options) for m in models]
    for m, rdp in zip(models, rdps, strict=True):
        forward_backward(m, tiny.inputs())
        sgd_step(m)
        rdp.step()
    assert rdps[0].kind == "dropped_part" and rdps[0].plan.kept
    old = list(models[0].parameters())
    for m, assign in zip(models, (True, False), strict=True):
        source = tiny.build()
        for value in source.state_dict().values():
            value += 0.125 if value.is_floating_point() else 1
        m.load_state_dict(source.state_dict(keep_vars=as_parameters), assign=assign)
    assert not any(mine is before for mine, before in zip(models[0].parameters(), old, strict=True))
    learning = tuple(rdps[0].plan.dropped)
    for iteration in range(3):
        flags = [{name: p.requires_grad for name, p in m.named_parameters()} for m in models]
        assert flags[0] == flags[1]
        actual, expected = (forward_backward(m, tiny.inputs(seed=iteration)) for m in models)
        assert_same(actual, expected)
        if iteration == 0:
            owners = tiny.owners(models[0])
            assert {owners[name] for name, g in actual.gradients.items() if g is not None} == set(learning)
        else:
            assert actual.gradients[next(iter(flags[0]))] is not None or rdps[0].kind == "dropped_part"
        assert_equal(buffers_of(models[0]), buffers_of(models[1]), "buffers")
        for m, rdp in zip(models, rdps, strict=True):
            sgd_step(m)
            rdp.step()


AUTOCAST_OPTIONS: dict[str, dict[str, Any]] = {
    "parameters": {"freeze": "parameters", "scale_by_keep": False},
    "stop_gradient": {"freeze": "stop_gradient", "scale_by_keep": False},
    "sample": {"freeze": "stop_gradient", "granularity": "sample", "scale_by_keep": False},
    # Scaled by 2 exactly; other factors are rounded once here, twice in the twin.
    "scaled": {"schedule": (1, 0)},
    "sample_scaled": {"schedule": (1, 0), "freeze": "stop_gradient", "granularity": "sample"},
}


@pytest.mark.parametrize("options", AUTOCAST_OPTIONS.values(), ids=AUTOCAST_OPTIONS.keys())
@some_models("timm_basic", "timm_vit", "timm_convnext", "projection", "layer_scale")
@pytest.mark.pairs
def test_under_autocast_outputs_are_those_of_the_masked_computation(tiny: TinyModel, options: dict[str, Any]) -> None:
    model, twin = tiny.build().float(), tiny.build().float()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", seed=3, **options)
    kinds: set[str] = set()
    for iteration in range(6):
        if rdp.plan.dropped:
            kinds.add(rdp.kind)
        inputs = tiny.inputs(seed=iteration).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(inputs)
            with reference_iteration(twin, rdp.plan, rdp.options, len(inputs)):
                expected = twin(inputs)
        assert output.dtype == torch.bfloat16
        assert_equal(output, expected, "output")
        rdp.step()
    assert kinds == ({"drop_path"} if "schedule" in options else {"drop_path", "dropped_part"})


class OverwritesItsShortcut(nn.Module):
    """What the add in place has overwritten is read again."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        before = after = x * 1
        after += self.f(x)
        return after * before


def test_an_add_in_place_overwrites_its_shortcut_when_scaled_too(factors_stay_outside: None) -> None:
    block, x = OverwritesItsShortcut().double().train(), rows(5, WIDTH)
    rdp = ResidualDropPath(nn.Sequential(block), 0.5)
    with rdp.acting([scale_by(2.0)]):
        assert_close(block(x), (x + 2 * block.f(x)).square(), "output")
