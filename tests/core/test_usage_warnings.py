"""What only warnings can say: each once, and none for loops that are right."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from residualdroppath import ResidualDropPath
from residualdroppath.core.freezing.known_optimizers import fails_without_gradient

from .guarded_training import FIRST, GuardedTraining
from .optimizer_stand_ins import (
    FailsWithoutGradient,
    LookaheadWithHooks,
    StepSizeBySums,
    StepSizeBySumsLater,
    named,
)
from .tiny_models import BY_NAME


def warned(train: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train()
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("make", [StepSizeBySums, StepSizeBySumsLater])
def test_step_sizes_estimated_over_what_learns(make: Any) -> None:
    training = GuardedTraining()
    optimizer = training.optimizer(make)
    with pytest.warns(UserWarning, match=rf"^`{make.__name__}` .* estimates its step size .* AdamW") as caught:
        training.train(optimizer, 1)
    assert [warning.filename for warning in caught] == [GuardedTraining.step.__code__.co_filename]  # the user's line
    training.train(optimizer, 3)
    training.train(training.optimizer(make), 2)  # of the same class


@pytest.mark.parametrize("make", [StepSizeBySums, FailsWithoutGradient])
def test_optimizers_of_other_models_are_not_warned_about(make: Any) -> None:
    training, other = GuardedTraining(), nn.Linear(2, 2)
    other.weight.grad = other.bias.grad = None
    critic = make(other.parameters())
    if make is FailsWithoutGradient:
        with pytest.raises(AttributeError, match="NoneType"):
            critic.step()
    else:
        critic.step()
    training.train(training.optimizer(), 1)


def test_failing_on_none_is_announced_before_it_happens() -> None:
    training = GuardedTraining()
    optimizer = training.optimizer(FailsWithoutGradient)
    training.frozen = ()
    training.train(optimizer, 1)  # every gradient is there
    training.frozen = FIRST
    with (
        pytest.warns(UserWarning, match="^`DoG` [(]dog[)] is known to fail on parameters whose gradient is None"),
        pytest.raises(AttributeError, match="NoneType"),
    ):
        training.step(optimizer)
    with pytest.raises(AttributeError, match="NoneType"):
        training.step(optimizer)


def test_which_optimizers_are_known_to_fail() -> None:
    class Derived(FailsWithoutGradient):
        pass

    @named("DoG", "elsewhere")
    class Namesake(SGD):
        pass

    parameters = [nn.Parameter(torch.ones(1))]
    assert fails_without_gradient(FailsWithoutGradient(parameters))
    assert fails_without_gradient(Derived(parameters))
    assert not fails_without_gradient(Namesake(parameters))
    assert not fails_without_gradient(torch.optim.AdamW(parameters))


def test_iterations_that_never_begin() -> None:
    training = GuardedTraining()
    optimizer = training.optimizer()

    def train(steps: int) -> None:
        for _ in range(steps):
            training.step(optimizer)

    assert warned(lambda: train(9)) == []
    training.next_iteration()
    assert warned(lambda: train(9)) == []
    training.guard.plan_changed()  # by `rdp.refresh()`: no iteration either
    with pytest.warns(UserWarning, match="^`SGD` [(]torch[)] has made 10 steps and `rdp.step[(][)]` was not called"):
        train(1)
    assert warned(lambda: train(30)) == []


def test_other_models_may_step_as_often_as_they_like() -> None:
    training = GuardedTraining()
    optimizer, other = training.optimizer(), nn.Linear(2, 2)
    critic = SGD(other.parameters(), lr=0.1)

    def train() -> None:
        for _ in range(6):
            for _ in range(12):
                other(torch.ones(1, 2)).sum().backward()
                critic.step()
            training.step(optimizer)
            training.next_iteration()

    assert warned(train) == []


def alternating(training: GuardedTraining, *calls: int, make: Any = SGD) -> None:
    """Updates with so many calls of `rdp.step()` after each."""
    optimizer = training.optimizer(make)
    for count in calls:
        training.step(optimizer)
        for _ in range(count):
            training.next_iteration()


@pytest.mark.parametrize(
    "calls",
    [
        [1] * 20,
        [2, 2, 2, 1, 2, 2, 2, 1],  # a GradScaler that skips steps
        [1, 9, 1, 9, 1, 30, 1],
        [0, 0, 2, 2, 0, 0, 1, 0, 2, 2, 2],  # the last is not over
        [4, 4, 4, 4],
    ],
)
def test_iterations_that_are_right(calls: list[int]) -> None:
    training = GuardedTraining()
    for _ in range(7):  # a scaler that looks for its scale, before the first step
        training.next_iteration()
    assert warned(lambda: alternating(training, *calls)) == []


@pytest.mark.parametrize("calls", [[2] * 5, [4, 2, 3, 9, 1], [1, 1, 2, 0, 2, 2, 0, 0, 2, 1], [2] * 30])
def test_more_iterations_than_updates(calls: list[int]) -> None:
    found = warned(lambda: alternating(GuardedTraining(), *calls))
    assert len(found) == 1
    assert found[0].startswith("`rdp.step()` was called ")
    assert "not per micro-batch" in found[0]


@pytest.mark.parametrize("order", ["f s b o", "f b s o", "f b s f b s o", "f b o s f s b o"])
def test_an_iteration_that_begins_before_its_optimizer_step(order: str) -> None:
    assert any("between a forward and the optimizer step" in text for text in warned(lambda: trained(order, 3)))


@pytest.mark.parametrize("order", ["f b o s", "f b f b o s", "f b s f b o s", "f b o o s", "o s", "f o s"])
def test_an_iteration_that_begins_after_its_optimizer_step(order: str) -> None:
    """The third: a GradScaler that skips a step."""
    assert warned(lambda: trained(order, 3)) == []


def trained(order: str, times: int) -> None:
    model = BY_NAME["own_add"].build()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform")
    optimizer = SGD(model.parameters(), lr=0.01)
    loss: list[Tensor] = []
    does: dict[str, Callable[[], object]] = {
        "f": lambda: loss.append(model(BY_NAME["own_add"].inputs(0, 2)).square().sum()),
        "b": lambda: loss.pop().backward(),
        "o": lambda: (optimizer.step(), optimizer.zero_grad()),
        "s": rdp.step,
    }
    for what in order.split() * times:
        does[what]()


@pytest.mark.parametrize("iterations", [1, 2])
def test_several_optimizers_make_one_update(iterations: int) -> None:
    training = GuardedTraining()
    optimizers = [SGD(layer.parameters(), lr=0.1) for layer in training.layers]

    def train() -> None:
        for _ in range(12):
            training.forward_backward()
            for optimizer in optimizers:
                optimizer.step()
            for _ in range(iterations):
                training.next_iteration()

    assert len(warned(train)) == (0 if iterations == 1 else 1)


def test_an_optimizer_inside_another_makes_one_update() -> None:
    training = GuardedTraining(check_values=False)
    optimizer = LookaheadWithHooks(SGD(training.model.parameters(), lr=0.1))
    assert warned(lambda: training.train(optimizer, 12)) == []


def test_parameters_that_no_optimizer_holds() -> None:
    training = GuardedTraining()
    optimizer = SGD(training.layers[0].parameters(), lr=0.1)
    training.next_iteration()  # before the first step
    assert warned(lambda: training.train(optimizer, 9)) == []
    training.next_iteration()  # without a step between
    with pytest.warns(UserWarning, match="^4 parameters .* [(]`2.weight`, `2.bias`, `4.weight`, [.]{3}[)]"):
        training.train(optimizer, 1)
    assert warned(lambda: training.train(optimizer, 30)) == []


def test_parameters_that_are_held_after_all() -> None:
    def frozen_by_the_user(training: GuardedTraining) -> list[Optimizer]:
        training.model[2].requires_grad_(False)
        training.model[4].requires_grad_(False)
        return [SGD(training.layers[0].parameters(), lr=0.1)]

    def by_several(training: GuardedTraining) -> list[Optimizer]:
        return [SGD(layer.parameters(), lr=0.1) for layer in training.layers]

    def by_groups_added_later(training: GuardedTraining) -> list[Optimizer]:
        optimizer = SGD(training.layers[0].parameters(), lr=0.1)
        training.forward_backward()
        optimizer.step()
        for layer in training.layers[1:]:
            optimizer.add_param_group({"params": list(layer.parameters())})
        return [optimizer]

    def by_one_that_is_gone(training: GuardedTraining) -> list[Optimizer]:
        training.train(SGD(training.model[2:].parameters(), lr=0.1), 1)
        return [SGD(training.layers[0].parameters(), lr=0.1)]

    def as_other_objects(training: GuardedTraining) -> list[Optimizer]:
        copies = [nn.Parameter(parameter.detach().clone()) for parameter in training.model.parameters()]
        return [SGD(copies, lr=0.1)]

    def train(training: GuardedTraining, make: Callable[[GuardedTraining], list[Optimizer]]) -> None:
        optimizers = make(training)
        for _ in range(12):
            training.forward_backward()
            for optimizer in optimizers:
                optimizer.step()
            training.next_iteration()

    for make in (frozen_by_the_user, by_several, by_groups_added_later, by_one_that_is_gone, as_other_objects):
        training = GuardedTraining()
        assert warned(lambda training=training, make=make: train(training, make)) == [], make.__name__


def test_optimizers_that_have_stepped_are_not_kept_alive() -> None:
    training = GuardedTraining()
    for _ in range(12):
        training.train(training.optimizer(), 1)
    assert len(training.guard._usage._seen) <= 1
