"""One walk through the life of a network under the method, held to DESIGN.md, section 4, at every step."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from residualdroppath import ResidualDropPath
from residualdroppath.core.forward_override import ForwardOverride
from residualdroppath.core.planning.plan import make_plan
from residualdroppath.core.reference import reference_iteration
from residualdroppath.core.running.actions import scale_by

from .by_hand import TRUNK, drops_a_part, frozen_norms, gate_of, learners_of, norm_modes
from .comparing import (
    Trace,
    assert_identical,
    assert_near,
    attributes,
    attributes_set_by,
    backward,
    buffers_of,
    calls_of,
    flat_output,
    parameters_of,
    run,
    trace_of,
)
from .discover_once import discovered_once
from .option_pairs import Options, Row
from .subject import Subject, num_rows, seeded

MOST_ITERATIONS = 10


def check_contracts(subject: Subject, rows: Sequence[Row]) -> None:
    """All contracts under each row of options. Raises `AssertionError` where one is broken."""
    with discovered_once(subject.plain, subject.inputs(0)):
        walk = Walk(subject, copy.deepcopy(subject.plain))
        for number, row in enumerate(rows):
            if row.options["granularity"] == "sample" and not subject.rows_are_independent:
                row = replace(row, options={**row.options, "granularity": "batch"})
            try:
                if number == 0:
                    walk.rates_of_zero_are_plain(row.options)
                walk.training_is_the_twins(row)
            except Exception as error:
                error.add_note(f"under {row}")
                raise


class Walk:
    """The life of `model`, a network of the subject, under the method."""

    def __init__(self, subject: Subject, model: nn.Module):
        self.subject = subject
        self.model = model
        self.plain = subject.plain
        self.owners: dict[str, str] = {}
        self.sets_itself = attributes_set_by(copy.deepcopy(subject.plain), subject.inputs(0))

    # --- the model stays plain

    def rates_of_zero_are_plain(self, options: Options) -> None:
        """Contract 1; and with each add left to its unit, nothing scaled, the same is computed."""
        plain = self.in_step(self.state())
        rdp = ResidualDropPath(self.model, **{**options, "drop_path_rate": 0.0})
        optimizers = [sgd(network) for network in (self.model, plain)]
        for iteration in range(2):
            inputs = self.subject.inputs(iteration)
            assert_identical(run(self.model, inputs), run(plain, inputs), "rates of zero")
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            rdp.step()
            for name, parameter in parameters_of(self.model).items():
                assert torch.equal(parameter, plain.get_parameter(name)), f"rates of zero: {name} differs"
        with rdp.acting([scale_by(1.0)] * len(rdp.branches)):
            self.compare(run(self.model, self.subject.inputs(2)), run(plain, self.subject.inputs(2)))
        rdp.remove()

    def evaluation_and_copies_are_plain(self) -> None:
        """Contract 2, while the method is on."""
        plain, inputs = self.in_step(self.state()), self.subject.inputs(3)
        flags = [parameter.requires_grad for parameter in plain.parameters()]
        for own, other in zip(self.model.parameters(), plain.parameters(), strict=True):
            other.requires_grad = own.requires_grad  # torch.matmul takes another path by this flag
        with torch.no_grad():
            outputs = [flat_output(seeded(network.eval())(**inputs)) for network in (self.model, plain)]
            self.model.train()
            plain.train()
            assert torch.equal(*outputs), "evaluation differs"
            copies = [copy.deepcopy(self.model)]
            if self.subject.can_be_pickled:
                copies.append(pickle.loads(pickle.dumps(self.model)))
            expected = flat_output(seeded(plain)(**inputs))
            for network in copies:
                assert not any(isinstance(vars(m).get("forward"), ForwardOverride) for m in network.modules()), "a copy"
                assert torch.equal(flat_output(seeded(network)(**inputs)), expected), "output of a copy differs"
                for name, buffer in network.named_buffers():
                    assert torch.equal(buffer, plain.get_buffer(name)), f"{name} of a copy differs"
        for parameter, flag in zip(plain.parameters(), flags, strict=True):
            parameter.requires_grad = flag

    def removed_is_plain(self, before: list[Any]) -> None:
        after = attributes(self.model)
        for number, name in self.sets_itself:
            after[number].pop(name, None)
            before[number].pop(name, None)
        assert after == before, "`remove()` leaves something behind"
        self.model.zero_grad()
        plain = self.in_step(self.state())
        inputs = self.subject.inputs(4)
        assert_identical(run(self.model, inputs), run(plain, inputs), "after `remove()`")
        self.model.zero_grad()

    # --- iterations

    def training_is_the_twins(self, row: Row) -> None:
        """Contracts 3 to 5, until an iteration of each kind has dropped a part of the branches."""
        before = attributes(self.model)
        rdp = self.telling(row.options)
        optimizer = sgd(self.model)
        self.branches_are_as_expected(rdp)
        left = kinds_of(row.options)
        while left:
            assert rdp.iteration < MOST_ITERATIONS, f"no iteration of {left} drops a part"
            self.iteration_is_the_twins(rdp)
            if rdp.kind in left and drops_a_part(rdp, num_rows(self.subject.inputs(rdp.iteration))):
                left.remove(rdp.kind)
                self.evaluation_and_copies_are_plain()
            self.update_moves_what_learns_alone(rdp, optimizer)
            if row.zero_first:
                optimizer.zero_grad(row.set_to_none)
            rdp.step()
            if not row.zero_first:
                optimizer.zero_grad(row.set_to_none)
        rdp.remove()
        self.removed_is_plain(before)

    def telling(self, options: Options) -> ResidualDropPath:
        """Under a seed whose first plans drop a part."""
        options = {"drop_path_rate": 0.5, **options}
        for seed in range(20):
            rdp = ResidualDropPath(self.model, **{**options, "seed": seed})
            plans = [make_plan(rdp._plan_options, iteration) for iteration in range(MOST_ITERATIONS // 2)]
            rows = num_rows(self.subject.inputs(0))
            if {plan.kind for plan in plans if drops_a_part(rdp, rows, plan)} == kinds_of(options):
                return rdp
            rdp.remove()
        raise AssertionError("no seed drops a part of the branches")

    def branches_are_as_expected(self, rdp: ResidualDropPath) -> None:
        """Names, order, parameters and rates; what is shared belongs to none."""
        name_of = {id(parameter): name for name, parameter in self.model.named_parameters()}
        found = {
            branch.name: {name_of[id(slot.parameter)] for slot in branch.slots if slot.parameter is not None}
            for branch in rdp.branches
        }
        if (expected := self.subject.branches) is not None:
            assert found == dict(expected) and list(found) == list(expected)
        self.owners = {name: branch for branch, names in found.items() for name in names}
        assert self.owners.keys().isdisjoint(rdp.shared_parameters)
        options, blocks = rdp.options, list(dict.fromkeys(branch.block for branch in rdp.branches))
        for branch in rdp.branches:
            last, rate = len(blocks) - 1, options.drop_path_rate
            assert rate != "model"
            if options.rate_over_depth == "linear" and last:
                rate = rate * blocks.index(branch.block) / last
            learns = any(self.model.get_parameter(name).requires_grad for name in found[branch.name])
            assert branch.drop_rate == (rate if learns or options.schedule == (1, 0) else 0)

    def iteration_is_the_twins(self, rdp: ResidualDropPath) -> None:
        """Forward and backward of the model equal those of networks that compute everything."""
        inputs, before = self.subject.inputs(rdp.iteration), self.state()
        rows = num_rows(inputs)
        learners = learners_of(rdp, rows)
        with calls_of(self.model) as calls:
            fast = run(self.model, inputs)
        self.dropped_is_not_called(rdp, calls)
        if rdp.kind == "drop_path" or rdp.options.frozen_norm != "update":
            for path in frozen_norms(self.model, self.owners, learners):
                for name, _ in self.model.get_submodule(path).named_buffers():
                    assert fast.buffers[f"{path}.{name}"].equal(before.values[f"{path}.{name}"]), f"{path} is frozen"

        twin = self.in_step(before)
        with reference_iteration(twin, rdp.plan, rdp.options, rows) as learning:
            slow = run(twin, inputs)
        names = [branch.name for branch in rdp.branches]
        assert {names[owner] if owner >= 0 else TRUNK for owner in learning} == learners
        self.compare(fast, replace(slow, buffers=buffers_of(twin)), learners)  # it has put back those of frozen norms
        assert torch.equal(fast.random_state, slow.random_state), "random generator"

        if rdp.kind == "dropped_part" and rdp.options.freeze == "parameters":
            full = self.in_step(before)
            with norm_modes(rdp, frozen_norms(full, self.owners, learners).values()):
                slow = run(full, inputs)
            self.compare(fast, replace(slow, buffers=buffers_of(full)), learners)
        if self.subject.formula:
            self.compare_with_formula(rdp, before, fast, calls)

    def compare_with_formula(self, rdp: ResidualDropPath, before: State, fast: Trace, calls: Counter[str]) -> None:
        assert self.subject.formula
        network, inputs = self.in_step(before), self.subject.inputs(rdp.iteration)
        rows = num_rows(inputs)
        learners = learners_of(rdp, rows)
        norms = frozen_norms(network, self.owners, learners).values()
        with norm_modes(rdp, norms), calls_of(network) as expected_calls:
            output = backward(self.subject.formula(network, inputs, gate_of(rdp, rows)))
        slow = trace_of(network, output)
        self.compare(fast, slow, learners)
        for name, gradient in slow.gradients.items():
            if self.owners.get(name, TRUNK) in learners:
                assert (gradient is None) == (fast.gradients[name] is None), name
        if rdp.kind == "drop_path" or rdp.options.granularity == "batch":
            assert not calls - expected_calls  # dropped branches are not called, and nothing twice
            left_out = [network.get_submodule(name) for name in expected_calls - calls]
            # Behind a dropped branch, where what is handed on is rectified already.
            assert rdp.kind == "drop_path" or not left_out
            assert all(type(layer) is nn.ReLU and layer.inplace for layer in left_out)

    def dropped_is_not_called(self, rdp: ResidualDropPath, calls: Counter[str]) -> None:
        if rdp.kind == "dropped_part" or rdp.options.granularity == "sample":
            return
        blocks = {branch.block for branch in rdp.branches}
        owner_of = {id(p): self.owners.get(name, TRUNK) for name, p in self.model.named_parameters()}
        for name in calls:
            layer = self.model.get_submodule(name)
            owners = {owner_of[id(parameter)] for parameter in layer.parameters()}
            assert not owners or layer in blocks or not owners <= set(rdp.plan.dropped), f"dropped, yet called: {name}"

    def update_moves_what_learns_alone(self, rdp: ResidualDropPath, optimizer: torch.optim.Optimizer) -> None:
        """Contract 5: bit-identical through momentum and weight decay, the optimizer's state included."""
        learners = learners_of(rdp, num_rows(self.subject.inputs(rdp.iteration)))
        frozen = [(n, p) for n, p in self.model.named_parameters() if self.owners.get(n, TRUNK) not in learners]
        before = [(parameter.detach().clone(), state_of(optimizer, parameter)) for _, parameter in frozen]
        optimizer.step()
        for (name, parameter), (value, state) in zip(frozen, before, strict=True):
            assert parameter.equal(value), f"{name} is frozen, and moved"
            now = state_of(optimizer, parameter)
            assert now.keys() == state.keys(), f"state of {name}"
            assert all(now[key].equal(state[key]) for key in state), f"state of {name}"

    def compare(self, fast: Trace, slow: Trace, learners: set[str] | None = None) -> None:
        """`slow` computes everything: gradients of `learners` alone count, by default of all."""
        assert_near(fast.output, slow.output, self.subject.tolerance, "output")
        largest = max((g.abs().max().item() for g in slow.gradients.values() if g is not None), default=1.0)
        for name, expected in slow.gradients.items():
            gradient, owner = fast.gradients[name], self.owners.get(name, TRUNK)
            if learners is not None and owner not in learners:
                assert gradient is None, f"{name} is frozen or dropped, and has a gradient"
            elif gradient is None:  # where all that uses it is dropped
                may_be_unused = owner == TRUNK or not self.subject.strict
                assert expected is None or (may_be_unused and not expected.any()), f"{name} has no gradient"
            else:
                assert expected is not None, f"{name} has a gradient"
                scale = 1.0 if self.subject.strict else largest
                assert_near(gradient, expected, self.subject.tolerance, f"gradient of {name}", scale)
        for name, buffer in slow.buffers.items():
            assert_near(fast.buffers[name], buffer, self.subject.tolerance, f"buffer {name}")

    # --- the plain network

    def state(self) -> State:
        """Of the model now: values of parameters and buffers, and gradients."""
        values = self.model.state_dict()  # with the versions of modules
        for name, value in values.items():
            values[name] = value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        return State(values, [None if p.grad is None else p.grad.clone() for p in self.model.parameters()])

    def in_step(self, state: State) -> nn.Module:
        """The plain network in this state of the model, loaded by its own keys."""
        assert list(self.plain.state_dict()) == list(state.values), "keys of the state"
        self.plain.load_state_dict(state.values, strict=True)
        for parameter, gradient in zip(self.plain.parameters(), state.gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        return self.plain


@dataclass(frozen=True)
class State:
    values: dict[str, Tensor]
    gradients: list[Tensor | None]


def kinds_of(options: Options) -> set[str]:
    return {"drop_path"} if options["schedule"] == (1, 0) else {"drop_path", "dropped_part"}


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=0.1)


def state_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    state = optimizer.state[parameter] if parameter in optimizer.state else {}
    return {key: value.clone() for key, value in state.items() if isinstance(value, Tensor)}
