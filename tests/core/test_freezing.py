"""Contracts 5 and 6: frozen means frozen, for every optimizer, and the user's own flags are kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RMSprop

from residualdroppath import ResidualDropPath

from .stepping import assert_equal, buffers_of, forward_backward, gradients_of, parameters_of
from .tiny_models import TRUNK, TinyModel, some_models

OPTIMIZERS: dict[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "sgd": partial(SGD, lr=0.01, momentum=0.9, weight_decay=0.1, foreach=False),
    "sgd_foreach": partial(SGD, lr=0.01, momentum=0.9, weight_decay=0.1, foreach=True),
    "sgd_fused": partial(SGD, lr=0.01, momentum=0.9, weight_decay=0.1, fused=True),
    "adam": partial(Adam, lr=0.01, weight_decay=0.1, amsgrad=True, foreach=False),
    "adam_foreach": partial(Adam, lr=0.01, weight_decay=0.1, foreach=True),
    "adam_fused": partial(Adam, lr=0.01, weight_decay=0.1, fused=True),
    "adamw_foreach": partial(AdamW, lr=0.01, weight_decay=0.1, foreach=True),
    "adamw_fused": partial(AdamW, lr=0.01, weight_decay=0.1, fused=True),
    "nadam": partial(NAdam, lr=0.01, weight_decay=0.1),
    "rmsprop": partial(RMSprop, lr=0.01, weight_decay=0.1, momentum=0.9),
}
every_optimizer = pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
typical_models = some_models("timm_basic", "two_adds")


def frozen_owners(tiny: TinyModel, rdp: ResidualDropPath) -> set[str]:
    if rdp.kind == "drop_path":
        return set(rdp.plan.dropped)
    return set(rdp.plan.kept) | (set() if rdp.options.train_trunk else {TRUNK})


def state_of(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    return copy.deepcopy(dict(optimizer.state.get(parameter, {})))


def check_frozen(
    tiny: TinyModel,
    make_optimizer: Callable[[Iterable[Tensor]], Optimizer],
    zero_grad: Callable[[Optimizer, ResidualDropPath], None],
    **options: Any,
) -> None:
    """Train six iterations: whatever is frozen stays the same, whatever learns does not."""
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **options)
    optimizer = make_optimizer(model.parameters())
    owners = tiny.owners(model)
    num_frozen = 0
    for iteration in range(6):
        frozen = frozen_owners(tiny, rdp)
        before = parameters_of(model)
        states = {name: state_of(optimizer, parameter) for name, parameter in model.named_parameters()}
        forward_backward(model, tiny.inputs(seed=iteration))
        optimizer.step()
        for name, parameter in model.named_parameters():
            if owners[name] in frozen:
                assert_equal(parameter.data, before[name], name)
                assert_equal(state_of(optimizer, parameter), states[name], f"optimizer state of {name}")
                num_frozen += bool(states[name])
            else:
                assert not torch.equal(parameter, before[name]), name
        zero_grad(optimizer, rdp)
    assert num_frozen > 0  # some had momentum to move by


def step_then_zero(optimizer: Optimizer, rdp: ResidualDropPath, *, set_to_none: bool) -> None:
    rdp.step()
    optimizer.zero_grad(set_to_none=set_to_none)


def zero_then_step(optimizer: Optimizer, rdp: ResidualDropPath, *, set_to_none: bool) -> None:
    optimizer.zero_grad(set_to_none=set_to_none)
    rdp.step()


@typical_models
@every_optimizer
@pytest.mark.parametrize("order", [step_then_zero, zero_then_step])
@pytest.mark.pairs
def test_frozen_parameters_and_their_optimizer_state_are_bit_identical(
    tiny: TinyModel, make_optimizer: Callable[..., Optimizer], order: Callable[..., None]
) -> None:
    check_frozen(tiny, make_optimizer, partial(order, set_to_none=False))


@typical_models
@pytest.mark.parametrize(
    "options",
    [{"freeze": "stop_gradient"}, {"train_trunk": True}, {"schedule": (1, 2)}, {"schedule": "random"}],
    ids=str,
)
@pytest.mark.pairs
def test_frozen_under_other_options(tiny: TinyModel, options: dict[str, Any]) -> None:
    for set_to_none in (False, True):
        check_frozen(tiny, OPTIMIZERS["adamw_foreach"], partial(zero_then_step, set_to_none=set_to_none), **options)


@typical_models
@pytest.mark.parametrize("order", [step_then_zero, zero_then_step])
def test_a_branch_that_no_row_drops_is_frozen_too(tiny: TinyModel, order: Callable[..., None]) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.2, rate_over_depth="uniform", freeze="stop_gradient", granularity="sample")
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    names = list(tiny.branches)
    owners = tiny.owners(model)
    num_frozen = 0
    for iteration in range(8):
        mask = rdp.plan.mask(2)
        by_row = mask.all(dim=1) if rdp.kind == "drop_path" else ~mask.any(dim=1)
        frozen = {name for name, is_frozen in zip(names, by_row.tolist(), strict=True) if is_frozen}
        num_frozen += len(frozen) if rdp.kind == "dropped_part" else 0
        before = parameters_of(model)
        forward_backward(model, tiny.inputs(seed=iteration, rows=2))
        optimizer.step()
        for name, parameter in model.named_parameters():
            if owners[name] in frozen or (owners[name] == TRUNK and rdp.kind == "dropped_part"):
                assert_equal(parameter.data, before[name], name)
            else:
                assert not torch.equal(parameter, before[name]), name
        order(optimizer, rdp, set_to_none=False)
    assert num_frozen > 0


@some_models("timm_basic", "post_activation")
@pytest.mark.parametrize("frozen_norm", ["update", "batch", "running"])
def test_buffers_of_frozen_norms_change_under_update_alone(tiny: TinyModel, frozen_norm: str) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", frozen_norm=frozen_norm)  # pyright: ignore
    rdp.step()
    learning = tuple(f"{member}." for branch in rdp.plan.dropped for member in tiny.branches[branch])
    before = buffers_of(model)
    forward_backward(model, tiny.inputs())
    frozen = [name for name in before if not name.startswith(learning)]
    assert frozen and len(frozen) < len(before)
    for name, buffer in buffers_of(model).items():
        unchanged = torch.equal(buffer, before[name])
        assert unchanged == (name in frozen and frozen_norm != "update"), name


@some_models("own_add")
def test_lbfgs_is_refused_while_the_method_is_on(tiny: TinyModel) -> None:
    model, other = tiny.build(), nn.Linear(2, 2)
    rdp = ResidualDropPath(model)
    optimizer = torch.optim.LBFGS(model.parameters())

    def closure() -> float:
        return float(forward_backward(model, tiny.inputs()).loss)

    before = parameters_of(model)
    with pytest.raises(ValueError, match="LBFGS moves these too"):
        optimizer.step(closure)
    assert_equal(parameters_of(model), before, "parameters")
    torch.optim.LBFGS(other.parameters()).step(lambda: float(other(torch.ones(1, 2)).detach().sum()))  # another model's
    rdp.remove()
    optimizer.step(closure)


@typical_models
@pytest.mark.parametrize("options", [{}, {"freeze": "stop_gradient"}, {"train_trunk": True}], ids=str)
def test_what_the_user_froze_stays_frozen(tiny: TinyModel, options: dict[str, Any]) -> None:
    model = tiny.build()
    names = list(dict(model.named_parameters()))
    users = {names[0], names[-1], *names[4:6]}  # some of the trunk, some of a branch
    for name in users:
        model.get_parameter(name).requires_grad_(False)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **options)
    for _ in range(4):
        trace = forward_backward(model, tiny.inputs())
        assert [name for name in users if trace.gradients[name] is not None] == []
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == (name not in users), name
        model.zero_grad()
        rdp.step()
    rdp.remove()
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == users


@typical_models
def test_paused_is_the_plain_model_with_the_users_flags(tiny: TinyModel) -> None:
    model, plain = tiny.build(), tiny.build()
    users = next(iter(dict(model.named_parameters())))
    model.get_parameter(users).requires_grad_(False)
    rdp = ResidualDropPath(model, 0.9, rate_over_depth="uniform", frozen_norm="running", freeze="stop_gradient")
    for _ in range(2):
        plan, flags = rdp.plan, [parameter.requires_grad for parameter in model.parameters()]
        plain.load_state_dict(model.state_dict())
        with rdp.paused():
            assert [name for name, p in model.named_parameters() if not p.requires_grad] == [users]
            trace, expected = forward_backward(model, tiny.inputs()), forward_backward(plain, tiny.inputs())
            assert_equal(trace.output, expected.output, "output")
            assert_equal(buffers_of(model), buffers_of(plain), "buffers")
        assert rdp.plan == plan
        assert [parameter.requires_grad for parameter in model.parameters()] == flags
        # A gradient made inside must not move what is frozen outside.
        owners = tiny.owners(model)
        left = {owners[name] for name, p in model.named_parameters() if p.grad is not None}
        assert left.isdisjoint(frozen_owners(tiny, rdp))
        rdp.step()


@some_models("own_add")
@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_pausing_between_backward_and_update_keeps_the_gradients(tiny: TinyModel, granularity: str) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, freeze="stop_gradient", granularity=granularity)  # pyright: ignore
    for _ in range(2):
        gradients = forward_backward(model, tiny.inputs()).gradients
        with rdp.paused():
            pass
        assert_equal(gradients_of(model), gradients, "gradients")
        rdp.refresh()
        assert_equal(gradients_of(model), gradients, "gradients")
        model.zero_grad()
        rdp.step()


@some_models("own_add")
def test_refresh_takes_notice_of_flags_changed_in_paused(tiny: TinyModel) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    rdp.step()
    dropped = model.get_submodule(name := rdp.plan.dropped[0])
    with rdp.paused():
        dropped.requires_grad_(False)
        model.get_submodule("head").requires_grad_(False)
    rdp.refresh()
    assert {branch.name: branch.drop_rate for branch in rdp.branches}[name] == 0
    assert name not in rdp.plan.dropped


@some_models("own_add")
def test_refresh_takes_notice_of_replaced_modules(tiny: TinyModel) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    rdp.step()
    for branch in [*rdp.plan.kept, *rdp.plan.dropped]:
        model.get_submodule(branch).branch = nn.Linear(6, 6).double()
    rdp.refresh()
    assert [branch.num_parameters for branch in rdp.branches] == [42, 42, 42]
    trace = forward_backward(model, tiny.inputs())
    learning = {name.rpartition(".branch")[0] for name, gradient in trace.gradients.items() if gradient is not None}
    assert learning == set(rdp.plan.dropped)


@some_models("own_add")
def test_parameters_that_are_computed_are_let_through(tiny: TinyModel) -> None:
    """By `torch.func.functional_call`: their flags cannot be set."""
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    rdp.step()
    computed = {name: parameter * 1.0 for name, parameter in model.named_parameters()}
    output = torch.func.functional_call(model, computed, (tiny.inputs(),))
    assert_equal(output, model(tiny.inputs()), "output")


@some_models("own_add")
def test_parameters_replaced_while_a_forward_runs_get_the_users_flags(tiny: TinyModel) -> None:
    """By copies with the flags of that moment, as FSDP does."""
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    rdp.step()

    def replace(module: nn.Module, _: Any) -> None:
        weight = module.get_parameter("weight")
        module.register_parameter("weight", nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))

    model.get_submodule("head").register_forward_pre_hook(replace)
    model(tiny.inputs())
    assert all(parameter.requires_grad for parameter in model.parameters())


@some_models("timm_basic")
@pytest.mark.parametrize("frozen_norm", ["batch", "running"])
def test_norms_are_in_training_mode_after_a_forward(tiny: TinyModel, frozen_norm: Any) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", frozen_norm=frozen_norm)
    rdp.step()
    model(tiny.inputs())
    assert all(module.training for module in model.modules())


@some_models("own_add")
def test_parameters_that_are_added_follow_the_plan(tiny: TinyModel) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    head = model.get_submodule("head")
    head.register_parameter("gain", gain := nn.Parameter(torch.ones(1, dtype=torch.float64)))

    def scaled(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output * gain

    head.register_forward_hook(scaled)
    for learns in (True, False):
        forward_backward(model, tiny.inputs())
        assert (gain.grad is not None) == learns
        model.zero_grad()
        rdp.step()


@some_models("own_add")
def test_a_parameter_that_was_absent_is_frozen_from_the_next_forward_on(tiny: TinyModel) -> None:
    model = tiny.build()
    head: nn.Linear = model.get_submodule("head")  # pyright: ignore[reportAssignmentType]
    head.bias = None  # pyright: ignore[reportAttributeAccessIssue]
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    rdp.step()
    forward_backward(model, tiny.inputs())
    head.bias = nn.Parameter(torch.zeros(head.out_features, dtype=torch.float64))
    forward_backward(model, tiny.inputs())
    assert rdp.kind == "dropped_part" and head.bias.grad is None
    model.zero_grad()
    rdp.step()
    forward_backward(model, tiny.inputs())
    assert head.bias.grad is not None
