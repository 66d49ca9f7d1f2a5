"""Every contract on networks drawn at random, against formulas written by hand and against the twin."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from residualdroppath import ResidualDropPath
from residualdroppath.core.reference import reference_iteration

from .random_blocks import Block, Gate
from .random_networks import TRUNK, Expected, Network, NetworkSpec, expected_branches, networks
from .stepping import Trace, assert_equal, buffers_of, forward_backward, gradients_of, loss_of, parameters_of

Options = dict[str, Any]


def examples(number: int) -> settings:
    """The same networks at every run, however long each takes."""
    return settings(
        max_examples=number,
        phases=(Phase.explicit, Phase.generate),  # making a failing network smaller takes many minutes
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
    )


@st.composite
def options(draw: DrawFn, **given: st.SearchStrategy[Any]) -> Options:
    """Options of `ResidualDropPath`; `given` draws some of them otherwise."""
    combinations = (("parameters", "batch"), ("stop_gradient", "batch"), ("stop_gradient", "sample"))
    freeze, granularity = draw(given.pop("combination", st.sampled_from(combinations)))
    choices = {
        "drop_path_rate": st.sampled_from((0.2, 0.4, 0.6)),
        "rate_over_depth": st.sampled_from(("linear", "uniform")),
        "scale_by_keep": st.booleans(),
        "frozen_norm": st.sampled_from(("update", "batch", "running")),
        "schedule": st.sampled_from(((1, 1), (1, 1), (2, 1), (1, 2), "random")),
        "train_trunk": st.sampled_from((False, False, True)),
        "seed": st.integers(0, 9),
        **given,
    }
    return {"freeze": freeze, "granularity": granularity, **{name: draw(choice) for name, choice in choices.items()}}


WHOLE_BRANCHES = st.sampled_from((("parameters", "batch"), ("stop_gradient", "batch")))


class Case:
    """One network under the method, and what the plan in force means for it, worked out by hand."""

    def __init__(self, spec: NetworkSpec, options: Options) -> None:
        self.spec = spec
        self.expected: Expected = expected_branches(spec)
        self.model = spec.build()
        self.rdp = ResidualDropPath(self.model, **options)
        self.names = list(self.expected.parameters)

    def go_to(self, kind: str) -> None:
        """On to the next iteration of this kind that drops something, if there is one soon."""
        for _ in range(8):
            if self.rdp.kind == kind and self.rdp.plan.dropped:
                return
            self.rdp.step()
        assume(False)

    def masks(self) -> dict[str, Tensor]:
        """By branch, the rows that drop it, bool[rows]."""
        plan, rows = self.rdp.plan, self.spec.rows
        if self.rdp.options.granularity == "sample":
            return dict(zip(self.names, plan.mask(rows), strict=True))
        return {name: torch.full((rows,), name in plan.dropped) for name in self.names}

    def learners(self) -> set[str]:
        """Branches that learn, and the trunk if it does."""
        masks = self.masks()
        if self.rdp.kind == "drop_path":
            return {TRUNK} | {name for name, dropped in masks.items() if not dropped.all()}
        trunk = {TRUNK} if self.rdp.options.train_trunk else set()
        return trunk | {name for name, dropped in masks.items() if dropped.any()}

    def gate(self, network: Network) -> Gate:
        plan, options, masks = self.rdp.plan, self.rdp.options, self.masks()
        rates = dict(zip(self.names, plan.drop_rates, strict=True))

        def drop_path(block: Block, index: int, run: Callable[[], Tensor]) -> Tensor | float:
            name = network.branch_name(block, index)
            if masks[name].all():
                return 0.0
            branch = run()
            kept = (~masks[name]).double().view(-1, *[1] * (branch.dim() - 1))
            return kept * branch / (1 - rates[name] if options.scale_by_keep else 1)

        def dropped_part(block: Block, index: int, run: Callable[[], Tensor]) -> Tensor:
            branch = run()
            if options.freeze == "parameters":
                return branch
            dropped = masks[network.branch_name(block, index)]
            if not dropped.any():
                return branch.detach()
            learning = dropped.double().view(-1, *[1] * (branch.dim() - 1))
            return learning * branch + (1 - learning) * branch.detach()

        return drop_path if plan.kind == "drop_path" else dropped_part

    def frozen_norms(self, network: Network) -> list[_BatchNorm]:
        norms = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
        owners = {name: self.expected.owner(f"{name}.weight") for name in norms}
        return [norms[name] for name in norms if owners[name] not in self.learners()]

    @contextmanager
    def norm_modes(self, network: Network) -> Iterator[None]:
        """`frozen_norm` in a network that runs everything."""
        mode = self.rdp.options.frozen_norm
        if self.rdp.kind == "drop_path" or mode == "update":
            yield
            return
        norms = self.frozen_norms(network)
        before = [copy.deepcopy(norm.state_dict()) for norm in norms]
        for norm in norms:
            norm.train(mode == "batch")
        yield
        for norm, state in zip(norms, before, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(state[name])

    def copy_of_model(self) -> Network:
        """A plain network with the weights that the model has now."""
        network = self.spec.build()
        network.load_state_dict(self.model.state_dict(), strict=True)
        return network


def assert_near(actual: Tensor, expected: Tensor, what: str) -> None:
    """To 1e-10, of the largest entry where that is above 1."""
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10 * scale, msg=lambda text: f"{what}: {text}")


@contextmanager
def calls_of(network: Network) -> Iterator[Counter[str]]:
    """How often each layer of a network is called, without hooks: layers that hooks watch are run as written."""
    calls: Counter[str] = Counter()
    named = network.named_modules()
    names = {module: name for name, module in named if type(module) is not nn.Sequential and not module._modules}
    call = nn.Module.__call__

    def counted(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if module in names and not any(isinstance(value, fx.Proxy) for value in args):
            calls[names[module]] += 1
        return call(module, *args, **kwargs)

    with patch.object(nn.Module, "__call__", counted):
        yield calls


def check_against(case: Case, fast: Trace, slow: Trace, slow_network: Network) -> None:
    """`fast` is the iteration of the model, `slow` computes everything: gradients of learners alone count."""
    assert_near(fast.output, slow.output, "output")
    assert_near(fast.loss, slow.loss, "loss")
    learners = case.learners()
    for name, gradient in fast.gradients.items():
        expected = slow.gradients[name]
        if case.expected.owner(name) not in learners:
            assert gradient is None, f"{name} is frozen or dropped"
        elif gradient is None:  # of the trunk alone, where all that uses it is dropped
            assert case.expected.owner(name) == TRUNK and (expected is None or not expected.any()), name
        else:
            assert expected is not None, name
            assert_near(gradient, expected, f"gradient of {name}")
    for (name, buffer), expected in zip(case.model.named_buffers(), slow_network.buffers(), strict=True):
        assert_near(buffer, expected, f"buffer {name}")


def check_by_hand(case: Case) -> None:
    network, inputs = case.copy_of_model(), case.spec.inputs(case.rdp.iteration)
    with calls_of(case.model) as calls:
        fast = forward_backward(case.model, inputs)
    with case.norm_modes(network), calls_of(network) as expected_calls:
        output = network.formula(inputs, case.gate(network))
        loss = loss_of(output)
        loss.backward()
    slow = Trace(output.detach(), loss.detach(), gradients_of(network), fast.random_state)
    check_against(case, fast, slow, network)
    if case.rdp.kind == "drop_path" or case.rdp.options.granularity == "batch":
        assert not calls - expected_calls  # dropped branches are not called, and nothing twice
        left_out = [network.get_submodule(name) for name in expected_calls - calls]
        # Behind a dropped branch, where what is handed on is rectified already.
        assert case.rdp.kind == "drop_path" or not left_out
        assert all(type(layer) is nn.ReLU and layer.inplace for layer in left_out)
    for name, gradient in slow.gradients.items():
        if case.expected.owner(name) in case.learners():
            assert (gradient is None) == (fast.gradients[name] is None), name


def check_by_twin(case: Case) -> None:
    twin, inputs = case.copy_of_model(), case.spec.inputs(case.rdp.iteration)
    fast = forward_backward(case.model, inputs)
    with reference_iteration(twin, case.rdp.plan, case.rdp.options, case.spec.rows) as learning:
        slow = forward_backward(twin, inputs)
    assert {case.names[index] if index >= 0 else TRUNK for index in learning} == case.learners()
    check_against(case, fast, slow, twin)


@examples(30)
@given(networks(), st.sampled_from(("linear", "uniform")), st.sampled_from(((1, 0), (1, 1))))
def test_discovery_finds_the_branches_that_were_built(spec: NetworkSpec, rate_over_depth: Any, schedule: Any) -> None:
    model, expected = spec.build(), expected_branches(spec)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth=rate_over_depth, schedule=schedule)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [branch.name for branch in rdp.branches] == list(expected.parameters)
    last = max(expected.blocks)
    for branch, block in zip(rdp.branches, expected.blocks, strict=True):
        names = expected.parameters[branch.name]
        assert {name_of[id(parameter)] for parameter in branch.parameters()} == names
        rate = 0.5 * block / last if rate_over_depth == "linear" and last else 0.5
        assert branch.drop_rate == (rate if names or schedule == (1, 0) else 0)  # where nothing would learn
    assert set(rdp.shared_parameters).isdisjoint(set().union(*expected.parameters.values()))  # they are the trunk's


@examples(20)
@given(networks(), options(drop_path_rate=st.just(0)))
def test_rates_of_zero_are_plain_training(spec: NetworkSpec, options: Options) -> None:
    model, plain = spec.build(), spec.build()
    rdp = ResidualDropPath(model, **options)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1) for m in (model, plain)]
    for iteration in range(2):
        traces = [forward_backward(network, spec.inputs(iteration)) for network in (model, plain)]
        assert_equal(vars(traces[0]), vars(traces[1]), "outputs and gradients")
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        rdp.step()
        assert_equal(parameters_of(model), parameters_of(plain), "parameters")
        assert_equal(buffers_of(model), buffers_of(plain), "buffers")


@examples(20)
@given(networks(), options(), st.integers(0, 2))
def test_the_model_stays_plain_outside_of_training(spec: NetworkSpec, options: Options, steps: int) -> None:
    model = spec.build()
    before = attributes(model)
    rdp = ResidualDropPath(model, **options)
    for _ in range(steps):
        rdp.step()
    forward_backward(model, spec.inputs())
    plain = spec.build()
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict(), strict=True)
    assert_equal(model.eval()(spec.inputs(1)), plain.eval()(spec.inputs(1)), "output in evaluation")
    model.train()
    plain.train()
    copies: list[nn.Module] = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    expected = plain(spec.inputs(2))
    for network in copies:
        assert_equal(network(spec.inputs(2)), expected, "output of a copy in training")
        assert_equal(buffers_of(network), buffers_of(plain), "buffers of a copy")
    rdp.remove()
    assert attributes(model) == before
    model.zero_grad()
    plain = spec.build()
    plain.load_state_dict(model.state_dict())
    traces = [forward_backward(network, spec.inputs(3)) for network in (model, plain)]
    assert_equal(vars(traces[0]), vars(traces[1]), "after `remove()`")


def attributes(model: nn.Module) -> list[Any]:
    """What hangs on each module, down to the flags of parameters and the hooks."""
    flags = [parameter.requires_grad for parameter in model.parameters()]
    return [flags] + [
        {name: dict(value) if isinstance(value, dict) else value for name, value in vars(module).items()}
        for module in model.modules()
    ]


@examples(40)
@given(networks(), options(schedule=st.sampled_from(((1, 1), (2, 1), (1, 0), "random"))))
def test_a_drop_path_iteration_equals_the_formula(spec: NetworkSpec, options: Options) -> None:
    case = Case(spec, options)
    case.go_to("drop_path")
    check_by_hand(case)


@examples(20)
@given(networks(), options())
def test_a_dropped_part_iteration_equals_the_formula(spec: NetworkSpec, options: Options) -> None:
    case = Case(spec, options)
    case.go_to("dropped_part")
    check_by_hand(case)


@examples(20)
@given(networks(), options(), st.sampled_from(("drop_path", "dropped_part")))
def test_an_iteration_equals_the_twin(spec: NetworkSpec, options: Options, kind: str) -> None:
    case = Case(spec, options)
    case.go_to(kind)
    check_by_twin(case)


@examples(20)
@given(networks(), options(combination=st.just(("parameters", "batch"))))
def test_a_dropped_part_iteration_has_the_gradients_of_the_full_network(spec: NetworkSpec, options: Options) -> None:
    case = Case(spec, options)
    case.go_to("dropped_part")
    network = case.copy_of_model()
    fast = forward_backward(case.model, spec.inputs())
    with case.norm_modes(network):
        full = forward_backward(network, spec.inputs())
    check_against(case, fast, full, network)
    dropped = [name for branch in case.rdp.plan.dropped for name in case.expected.parameters[branch]]
    assert all(fast.gradients[name] is not None for name in dropped)


@examples(20)
@given(networks(), options(), st.booleans(), st.booleans())
def test_frozen_is_bit_identical_after_the_update(
    spec: NetworkSpec, options: Options, zero_first: bool, set_to_none: bool
) -> None:
    case = Case(spec, options)
    model, rdp = case.model, case.rdp
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    for iteration in range(4):
        learners = case.learners()
        frozen = [name for name in parameters_of(model) if case.expected.owner(name) not in learners]
        norms = case.frozen_norms(model) if rdp.kind == "drop_path" or rdp.options.frozen_norm != "update" else []
        before = copy.deepcopy(state_of(model, optimizer, frozen, norms))
        forward_backward(model, spec.inputs(iteration))
        optimizer.step()
        assert_equal(state_of(model, optimizer, frozen, norms), before, "frozen")
        if zero_first:
            optimizer.zero_grad(set_to_none=set_to_none)
        rdp.step()
        if not zero_first:
            optimizer.zero_grad(set_to_none=set_to_none)


def state_of(model: Network, optimizer: torch.optim.Optimizer, names: list[str], norms: list[_BatchNorm]) -> list[Any]:
    """Parameters, their state in the optimizer, and the buffers of norms."""
    parameters = [model.get_parameter(name) for name in names]
    states = [{**optimizer.state[parameter]} if parameter in optimizer.state else {} for parameter in parameters]
    return [[parameter.detach() for parameter in parameters], states, [dict(norm.named_buffers()) for norm in norms]]
