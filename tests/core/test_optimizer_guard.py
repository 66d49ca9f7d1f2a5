"""`OptimizerGuard`: what is frozen has no gradient in a step and the same values after it, or there is an error."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from residualdroppath.core.freezing.optimizer_guard import FrozenParameterMovedError

from .guarded_training import FIRST, LATER, GuardedTraining, group_of_one
from .optimizer_stand_ins import (
    DecayOfTheLast,
    EvolutionarySearch,
    LookaheadWithHooks,
    LookaheadWithoutHooks,
    ScheduleFree,
    ScheduleFreeClosure,
    WritesToNewStorage,
    ZeroFilling,
)

DECAY: dict[str, Any] = {"weight_decay": 0.1}


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, **DECAY),
        lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, foreach=True, **DECAY),
        lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, fused=True, **DECAY),
        lambda parameters: Adam(parameters, lr=0.01, amsgrad=True, **DECAY),
        lambda parameters: AdamW(parameters, lr=0.01, foreach=True, **DECAY),
        lambda parameters: AdamW(parameters, lr=0.01, fused=True, **DECAY),
        lambda parameters: torch.optim.Adagrad(parameters, fused=True, **DECAY),
        lambda parameters: torch.optim.RMSprop(parameters, momentum=0.9, **DECAY),
        lambda parameters: torch.optim.NAdam(parameters, **DECAY),
        lambda parameters: torch.optim.Adafactor(parameters, **DECAY),
    ],
    ids=["sgd", "sgd foreach", "sgd fused", "adam", "adamw foreach", "adamw fused", "adagrad", "rmsprop", "nadam"]
    + ["adafactor"],
)
@pytest.mark.parametrize("by_closure", [False, True])
def test_optimizers_of_torch_leave_frozen_parameters_alone(make: Callable[..., Optimizer], by_closure: bool) -> None:
    training = GuardedTraining()
    optimizer = make(training.model.parameters())
    for _ in range(6):
        before = {name: parameter.detach().clone() for name, parameter in training.parameters().items()}
        training.step(optimizer, by_closure=by_closure)
        moved = {name for name, parameter in training.parameters().items() if not torch.equal(before[name], parameter)}
        assert moved == set(before) - set(training.frozen)
        training.next_iteration()


def test_gradients_of_what_is_frozen_are_none_in_a_step_whoever_filled_them() -> None:
    training = GuardedTraining()
    seen: list[set[str]] = []

    class Looking(SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append({name for name, parameter in training.parameters().items() if parameter.grad is not None})
            return super().step(closure)

    optimizer = training.optimizer(Looking, momentum=0.9)
    for parameter in training.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    training.train(optimizer, 2)
    assert seen == [set(LATER), set(LATER), set(FIRST)]


def lookahead(parameters: Any, kind: Any = LookaheadWithHooks) -> Optimizer:
    return kind(SGD(parameters, lr=0.1, momentum=0.9))


@pytest.mark.parametrize(
    ("make", "by_closure", "who", "instead"),
    [
        (ScheduleFreeClosure, True, "`SGDScheduleFreeClosure` (schedulefree)", "Use `SGDScheduleFree`, the form"),
        (lookahead, False, "`Lookahead` (lookahead_pytorch)", "Use `timm.optim.Lookahead`"),
        (DecayOfTheLast, False, "`Ranger21` (ranger21)", "Use `pytorch_optimizer.Ranger21`."),
        (ZeroFilling, False, "`Muon` (train_gpt)", "Use `torch.optim.Muon`"),
        (EvolutionarySearch, True, "`EvolutionarySearch` (torchium)", "Use an optimizer that passes over"),
        (WritesToNewStorage, False, "`VectorOfAll` (copied)", "Use an optimizer that passes over"),
    ],
    ids=["schedule free", "lookahead", "ranger21", "muon", "evolution", "new storage"],
)
def test_an_optimizer_that_moves_what_is_frozen_is_named(make: Any, by_closure: bool, who: str, instead: str) -> None:
    training = GuardedTraining()
    optimizer = make(training.model.parameters())
    with pytest.raises(FrozenParameterMovedError) as caught:
        for _ in range(6):
            before = {name: parameter.detach().clone() for name, parameter in training.frozen_parameters().items()}
            training.step(optimizer, by_closure=by_closure)
            for name, parameter in training.frozen_parameters().items():  # not one step later
                assert torch.equal(before[name], parameter)
            training.next_iteration()
    message = str(caught.value)
    assert message.startswith(f"`step()` of {who} changed parameters that the iteration in force freezes: `")
    assert instead in message
    assert "`rdp.refresh()`" in message and "`check_frozen=False`" in message


def test_a_wrapper_without_hooks_is_caught_when_the_iteration_ends() -> None:
    training = GuardedTraining()
    optimizer = lookahead(training.model.parameters(), LookaheadWithoutHooks)
    training.train(optimizer, 2)
    training.step(optimizer)  # the inner step is over when the wrapper writes
    with pytest.raises(
        FrozenParameterMovedError, match=r"^Something between optimizer steps .* `timm.optim.Lookahead`"
    ):
        training.next_iteration()


def test_names_at_most_three_parameters_and_how_many_more() -> None:
    training = GuardedTraining()
    training.frozen = LATER
    training.guard.before_forward()
    training.move(LATER[1:])
    with pytest.raises(RuntimeError, match="freezes: `2.bias`, `4.weight`, `4.bias`[.] "):
        training.guard.check_between()
    training.frozen = (*FIRST, *LATER)
    training.guard.before_forward()
    training.move((*FIRST, *LATER))
    with pytest.raises(FrozenParameterMovedError, match="freezes: `0.weight`, `0.bias`, `2.weight` and 3 more[.] "):
        training.guard.check_between()


def test_what_moves_between_forward_and_step_is_not_laid_on_the_optimizer() -> None:
    training = GuardedTraining()
    optimizer = training.optimizer()
    training.forward_backward()
    training.move(FIRST)
    with pytest.raises(FrozenParameterMovedError, match="^Something between optimizer steps"):
        optimizer.step()
    training.step(optimizer)  # raised once: training may go on
    training.next_iteration()


def test_without_the_check_values_are_nobodys_concern_but_gradients_are() -> None:
    training = GuardedTraining(check_values=False)
    optimizer = training.optimizer(DecayOfTheLast)
    training.train(optimizer, 2)
    training.evaluate()
    training.guard.plan_changed()
    training.forward_backward()
    optimizer.step()
    assert [name for name, parameter in training.parameters().items() if parameter.grad is None] == list(FIRST)
    training.guard.remove()


def test_what_is_frozen_may_be_written_to_when_the_plan_is_taken_up_anew() -> None:
    training = GuardedTraining()
    optimizer = training.optimizer()
    training.step(optimizer)
    training.move(FIRST)
    training.guard.plan_changed()  # by `rdp.refresh()`
    training.step(optimizer)
    training.next_iteration()


def test_weights_swapped_for_an_evaluation_may_come_back_up_to_rounding() -> None:
    training = GuardedTraining()
    optimizer = training.optimizer()
    training.step(optimizer)
    training.move(FIRST)
    training.evaluate()
    for parameter in training.model.parameters():
        parameter.data.div_(1.5).mul_(1 + 1e-6)
    training.next_iteration()
    training.train(optimizer, 1)


def test_a_forward_without_gradients_is_not_where_a_sample_is_taken() -> None:
    training = GuardedTraining()
    optimizer = training.optimizer()
    training.move(FIRST)
    with torch.no_grad():
        training.guard.before_forward()
        training.model(training.inputs)  # gathers statistics over swapped weights
    training.move(FIRST)
    training.step(optimizer)
    training.next_iteration()


def test_an_optimizer_that_swaps_weights_by_itself_is_held_to_its_own_steps() -> None:
    training = GuardedTraining()
    optimizer = training.optimizer(ScheduleFree)
    for _ in range(4):
        training.step(optimizer)
        optimizer.eval()  # to save them
        optimizer.train()
        training.next_iteration()
        training.guard.before_forward()
        optimizer.eval()
        optimizer.train()
    training.move(FIRST)

    class Moving(ScheduleFree):
        def step(self, closure: Any = None) -> Any:
            training.move(FIRST)

    with pytest.raises(FrozenParameterMovedError, match="^`step[(][)]` of `Moving`"):
        training.step(training.optimizer(Moving))


def test_parameters_that_the_user_froze_may_move() -> None:
    training = GuardedTraining()
    optimizer = training.optimizer()
    training.model.get_parameter("0.bias").requires_grad_(False)  # as a momentum encoder's
    for _ in range(4):
        training.step(optimizer)
        training.move(["0.bias"])
        training.next_iteration()
    training.step(optimizer)
    training.move(["0.weight"])
    with pytest.raises(FrozenParameterMovedError, match="freezes: `0.weight`[.]"):
        training.next_iteration()


def test_the_first_step_of_a_plan_takes_the_sample_if_no_forward_has() -> None:
    training = GuardedTraining()
    optimizer = training.optimizer(DecayOfTheLast)
    training.frozen = LATER
    for parameter in training.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(FrozenParameterMovedError, match="Ranger21"):
        optimizer.step()


def test_lbfgs_is_refused_on_parameters_of_the_model() -> None:
    training, other = GuardedTraining(), nn.Linear(2, 2)
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    optimizer = torch.optim.LBFGS(training.model.parameters())
    with pytest.raises(ValueError, match="LBFGS moves these too"):
        training.step(optimizer, by_closure=True)
    assert all(map(torch.equal, before, training.model.parameters()))
    torch.optim.LBFGS(other.parameters()).step(lambda: float(other(torch.ones(1, 2)).detach().sum()))
    training.guard.remove()
    training.step(optimizer, by_closure=True)


def test_guards_of_several_models_keep_to_their_own() -> None:
    first, second = GuardedTraining(), GuardedTraining()
    for training in (first, second):
        training.forward_backward()
    gradients = [parameter.grad for parameter in second.model.parameters()]
    mover = DecayOfTheLast([*second.layers[0].parameters(), nn.Parameter(torch.ones(2))])  # moves nobody's
    first.move(FIRST)
    mover.step()  # which is not laid on the optimizer of another model
    assert first.model.get_parameter("0.bias").grad is None
    assert second.model.get_parameter("2.bias").grad is gradients[3]
    with pytest.raises(FrozenParameterMovedError, match="^Something"):
        first.optimizer().step()
    first.guard.remove()
    second.frozen = ("0.bias",)
    second.guard.plan_changed()
    with pytest.raises(FrozenParameterMovedError, match="Ranger21"):
        second.step(DecayOfTheLast(second.layers[0].parameters()))


@pytest.fixture
def own_garbage() -> Iterator[None]:
    """Garbage collection looks at what the test makes alone: fast, and no hooks of earlier tests vanish in between."""
    gc.freeze()
    yield
    gc.unfreeze()


def hooks() -> int:
    return len(_global_optimizer_pre_hooks) + len(_global_optimizer_post_hooks)


@pytest.mark.usefixtures("own_garbage")
def test_remove_takes_the_hooks_away_and_install_brings_them_back_once() -> None:
    before = hooks()
    training = GuardedTraining()
    training.guard.install()
    assert hooks() == before + 2
    training.forward_backward()
    training.guard.remove()
    training.guard.remove()
    assert hooks() == before
    optimizer = training.optimizer(DecayOfTheLast)
    training.frozen = LATER
    training.step(optimizer)
    assert training.model.get_parameter("2.bias").grad is not None
    training.guard.install()
    with pytest.raises(FrozenParameterMovedError):
        training.step(optimizer)


@pytest.mark.usefixtures("own_garbage")
def test_garbage_collection_takes_the_hooks_away() -> None:
    before = hooks()
    training = GuardedTraining()
    training.train(training.optimizer(), 3)
    model, guard = weakref.ref(training.model), weakref.ref(training.guard)
    del training
    gc.collect()
    assert (model(), guard(), hooks()) == (None, None, before)


@pytest.mark.usefixtures("own_garbage")
def test_a_guard_collected_in_the_middle_of_a_hook_does_not_break_the_step() -> None:
    before = hooks()
    training, victim, last = GuardedTraining(), GuardedTraining(), GuardedTraining()
    reference = weakref.ref(victim.guard)
    collect = training.frozen_parameters

    def frozen() -> dict[str, nn.Parameter]:
        gc.collect()
        return collect()

    training.guard._frozen = frozen
    del victim
    training.step(training.optimizer())  # torch would speak of a dictionary that changed while iterated over
    assert reference() is None
    training.guard.remove()
    last.guard.remove()
    assert hooks() == before


@pytest.mark.usefixtures("own_garbage")
def test_a_guard_removed_in_the_middle_of_a_hook_does_nothing_more() -> None:
    before = hooks()
    training, other = GuardedTraining(), GuardedTraining()
    other.forward_backward()
    frozen = training.frozen_parameters
    training.guard._frozen = lambda: (other.guard.remove(), frozen())[1]
    training.optimizer().step()
    assert all(parameter.grad is not None for parameter in other.model.parameters())
    training.guard.remove()
    assert hooks() == before


@pytest.mark.usefixtures("own_garbage")
def test_neither_optimizers_nor_parameters_are_kept_alive() -> None:
    training = GuardedTraining()
    optimizer = training.optimizer(momentum=0.9)
    training.train(optimizer, 4)
    old = training.model[0]
    dead = [weakref.ref(optimizer), weakref.ref(old.weight), weakref.ref(old.bias)]
    training.model[0] = nn.Linear(6, 8)
    del optimizer, old
    training.next_iteration()
    gc.collect()
    assert [reference() for reference in dead] == [None, None, None]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method. is deprecated")  # imported by Dynamo itself
def test_a_compiled_step_is_left_alone_and_seen_at_the_end_of_the_iteration() -> None:
    gc.collect()  # hooks of networks of other tests, which are for all optimizers, would go while Dynamo reads them
    torch._dynamo.reset()
    training = GuardedTraining()
    optimizer = training.optimizer(momentum=0.9)
    step = torch.compile(optimizer.step, backend="eager")
    for moves in (False, False, True):
        training.forward_backward()
        for parameter in training.frozen_parameters().values():
            parameter.grad = torch.ones_like(parameter) if moves else None
        step()
        if not moves:
            training.next_iteration()
    with pytest.raises(FrozenParameterMovedError, match="^Something"):
        training.next_iteration()


def test_optimizers_that_step_inside_the_backward() -> None:
    training = GuardedTraining()
    optimizers = {parameter: SGD([parameter], lr=0.1) for parameter in training.model.parameters()}

    def update(parameter: torch.Tensor) -> None:
        optimizers[parameter].step()  # pyright: ignore[reportArgumentType]
        optimizers[parameter].zero_grad()  # pyright: ignore[reportArgumentType]

    for parameter in training.model.parameters():
        parameter.register_post_accumulate_grad_hook(update)
    for _ in range(12):
        before = {name: parameter.detach().clone() for name, parameter in training.parameters().items()}
        training.forward_backward()
        moved = {name for name, parameter in training.parameters().items() if not torch.equal(before[name], parameter)}
        assert moved == set(before) - set(training.frozen)
        training.next_iteration()


@pytest.fixture
def one_rank() -> Iterator[None]:
    with group_of_one():
        yield


def full_values(training: GuardedTraining) -> dict[str, torch.Tensor]:
    sharded: dict[str, Any] = training.model.state_dict()
    return {name: parameter.full_tensor().clone() for name, parameter in sharded.items()}


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("reshard", [True, False])
def test_parameters_that_fsdp_swaps(reshard: bool) -> None:
    training = GuardedTraining()
    mesh = init_device_mesh("cpu", (1,))
    for layer in (*training.layers, training.model):
        fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
    optimizer = training.optimizer(Adam, **DECAY)
    for _ in range(4):
        before = full_values(training)
        training.step(optimizer)
        after = full_values(training)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == set(before) - set(training.frozen)
        training.next_iteration()
    with pytest.raises(FrozenParameterMovedError, match="^`step[(][)]` of `Muon`"):
        training.train(training.optimizer(ZeroFilling), 1)
