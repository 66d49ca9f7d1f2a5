"""The contracts of DESIGN.md, section 4, on any network: what it does under ResidualDropPath and what it should."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from residualdroppath import ResidualDropPath
from residualdroppath.core import reference, residual_drop_path
from residualdroppath.core.discovery.found import Discovery
from residualdroppath.core.discovery.network_walk import discover
from residualdroppath.core.forward_override import ForwardOverride
from residualdroppath.core.freezing.ownership import TRUNK
from residualdroppath.core.planning.plan import make_plan
from residualdroppath.core.reference import reference_iteration
from residualdroppath.core.running.actions import scale_by

Inputs = dict[str, Tensor]
Freeze = Literal["parameters", "stop_gradient"]
RATE = {"drop_path_rate": 0.5, "rate_over_depth": "uniform"}


@dataclass(frozen=True)
class Trace:
    """What one forward and backward leaves behind."""

    output: Tensor
    gradients: dict[str, Tensor | None]
    buffers: dict[str, Tensor]
    random_state: Tensor


def run(network: nn.Module, inputs: Inputs) -> Trace:
    torch.manual_seed(7)
    output = flat_output(network(**inputs))
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype)
    ((weights * output).sum() + output.square().mean()).backward()
    return Trace(output.detach(), gradients(network), buffers(network), torch.get_rng_state())


def flat_output(output: Any) -> Tensor:
    """All that a network returns as one vector."""
    values = tree_leaves(dict(output) if isinstance(output, dict) else output)
    return torch.cat([v.flatten().double() for v in values if isinstance(v, Tensor) and v.is_floating_point()])


def gradients(network: nn.Module) -> dict[str, Tensor | None]:
    found = {name: p.grad for name, p in network.named_parameters()}
    network.zero_grad()
    return found


def buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


class Contracts:
    """Each method checks one contract on a fresh copy of a network; raises `AssertionError` where it is broken."""

    def __init__(self, build: Callable[[], nn.Module], inputs: Inputs):
        self.pristine = build()
        self.inputs = inputs
        self.tolerance = 1e-4 if computes_in_float32(self.pristine, inputs) else 1e-10
        self.is_random = not torch.equal(*(self.output_with_seed(seed) for seed in (1, 2)))

    def check_all(self) -> None:
        with discovered_once(self.pristine):
            self._check_all()

    def _check_all(self) -> None:
        self.rates_zero_is_plain()
        self.evaluation_and_copies_are_plain()
        self.rewritten_forwards_are_the_blocks_own()
        options: list[dict[str, Any]] = [{}, {"freeze": "stop_gradient", "frozen_norm": "batch"}]
        # Some rows draw other random numbers than all; the twin knows one number of rows (timm's tnt has two).
        if not self.is_random and self.blocks_see_the_rows_of_the_batch():
            options.append({"freeze": "stop_gradient", "granularity": "sample"})
        for chosen in options:
            self.a_cycle_is_the_twins(**chosen)

    def output_with_seed(self, seed: int) -> Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            return flat_output(self.network()(**self.inputs))

    def blocks_see_the_rows_of_the_batch(self) -> bool:
        network, rows = self.network(), set()
        blocks = {branch.block for branch in ResidualDropPath(network, 0.0).branches}
        for block in blocks:
            block.register_forward_pre_hook(lambda _, args: rows.update(len(v) for v in args if isinstance(v, Tensor)))
        with torch.no_grad():
            network(**self.inputs)
        return rows <= {len(next(iter(self.inputs.values())))}

    def network(self) -> nn.Module:
        return copy.deepcopy(self.pristine)

    def rates_zero_is_plain(self) -> None:
        network, plain = self.network(), self.network()
        ResidualDropPath(network, 0.0)
        assert_same(run(network, self.inputs), run(plain, self.inputs), 0.0)

    def evaluation_and_copies_are_plain(self) -> None:
        network, plain = self.network().eval(), self.network().eval()
        forwards = {name: "forward" in vars(module) for name, module in network.named_modules()}
        flags = {name: p.requires_grad for name, p in network.named_parameters()}
        rdp = ResidualDropPath(network, **RATE)
        with torch.no_grad():
            for _ in range(2):
                for own, other in zip(network.parameters(), plain.parameters(), strict=True):
                    other.requires_grad = own.requires_grad  # torch.matmul takes another way by this flag
                expected = flat_output(plain(**self.inputs))
                assert torch.equal(flat_output(network(**self.inputs)), expected), "evaluation differs"
                rdp.step()
        plain.load_state_dict(network.state_dict(), strict=True)
        duplicate = copy.deepcopy(network)
        assert not any(isinstance(vars(m).get("forward"), ForwardOverride) for m in duplicate.modules()), "deepcopy"
        rdp.remove()
        assert forwards == {name: "forward" in vars(module) for name, module in network.named_modules()}, "remove()"
        assert flags == {name: p.requires_grad for name, p in network.named_parameters()}, "remove()"

    def rewritten_forwards_are_the_blocks_own(self) -> None:
        """Every add by its unit, nothing dropped or scaled."""
        network, plain = self.network(), self.network()
        rdp = ResidualDropPath(network, 0.0)
        for state in rdp._enforcement.states:
            state.action = scale_by(1.0)
        assert_same(run(network, self.inputs), run(plain, self.inputs), self.tolerance)

    def a_cycle_is_the_twins(
        self, freeze: Literal["parameters", "stop_gradient"] = "parameters", **options: Any
    ) -> None:
        network, twin = self.network(), self.network()
        rdp = ResidualDropPath(network, seed=self.telling_seed, freeze=freeze, **RATE, **options)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=0.1)
        rows = len(next(iter(self.inputs.values())))
        for _ in range(2):
            twin.load_state_dict(network.state_dict())
            with forbidden_calls(self.not_to_be_called(rdp)):
                fast = run_keeping_gradients(network, self.inputs)
            with reference_iteration(twin, rdp.plan, rdp.options, rows) as learning:
                slow = run(twin, self.inputs)
            slow = Trace(slow.output, only_of(learning, slow.gradients, rdp), buffers(twin), slow.random_state)
            assert_same(fast, slow, self.tolerance)
            if rdp.kind == "dropped_part" and freeze == "parameters":
                twin.load_state_dict(network.state_dict())
                full = run(twin, self.inputs)
                assert_near(fast.output, full.output, self.tolerance, "dropped_part is not the full forward: output")
            before = {name: p.detach().clone() for name, p in network.named_parameters()}
            optimizer.step()
            for name, parameter in network.named_parameters():
                learns = fast.gradients[name] is not None
                assert learns or torch.equal(parameter, before[name]), f"{name} is frozen, and moved"
            optimizer.zero_grad()
            rdp.step()

    @cached_property
    def telling_seed(self) -> int:
        """A seed that drops some branches and keeps some, where there are several."""
        rdp = ResidualDropPath(self.network(), **RATE)
        for seed in range(20):
            dropped = len(make_plan(replace(rdp._plan_options, seed=seed), 0).dropped)
            if 0 < dropped < len(rdp.branches) or len(rdp.branches) == 1:
                return seed
        raise AssertionError("no seed drops a part of the branches")

    def not_to_be_called(self, rdp: ResidualDropPath) -> list[nn.Module]:
        """Modules with parameters that belong to dropped branches alone."""
        if rdp.kind == "dropped_part" or rdp.options.granularity == "sample":
            return []
        dropped = [index for index, branch in enumerate(rdp.branches) if branch.name in rdp.plan.dropped]
        return [
            m
            for index in dropped
            for m in rdp._enforcement.ownership.modules[index]
            if any(True for _ in m.parameters())
        ]


@contextmanager
def discovered_once(pristine: nn.Module) -> Iterator[None]:
    """Discovery, most of the time that contracts take, is done for a network and carried over to its copies."""
    found = discover(pristine)

    def of_copy(network: nn.Module) -> Discovery:
        return carried_over(found, pristine, network)

    with patch.object(residual_drop_path, "discover", of_copy), patch.object(reference, "discover", of_copy):
        yield


def carried_over(found: Discovery, pristine: nn.Module, network: nn.Module) -> Discovery:
    """What was found in one network, for a copy of it."""
    twins = dict(zip(map(id, pristine.modules()), network.modules(), strict=True))
    return replace(
        found,
        branches=[replace(branch, block=twins[id(branch.block)]) for branch in found.branches],
        outputs_read={twins[id(module)]: read for module, read in found.outputs_read.items()},
        deep_uses={twins[id(module)]: names for module, names in found.deep_uses.items()},
        idle={(id(twins[module]), name) for module, name in found.idle},
    )


def run_keeping_gradients(network: nn.Module, inputs: Inputs) -> Trace:
    trace = run(network, inputs)
    for name, parameter in network.named_parameters():
        parameter.grad = trace.gradients[name]
    return trace


def only_of(learning: set[int], found: dict[str, Tensor | None], rdp: ResidualDropPath) -> dict[str, Tensor | None]:
    """The gradients of what learns; the twin computes those of all."""
    names = {id(parameter): name for name, parameter in rdp.model.named_parameters()}
    owners = {
        names[id(slot.parameter)]: owner for owner, slots in rdp._enforcement.ownership.slots.items() for slot in slots
    }
    assert set(owners.values()) <= {TRUNK, *range(len(rdp.branches))}
    return {name: gradient if owners[name] in learning else None for name, gradient in found.items()}


def assert_same(actual: Trace, expected: Trace, tolerance: float) -> None:
    assert_near(actual.output, expected.output, tolerance, "output")
    largest = max((g.abs().max().item() for g in expected.gradients.values() if g is not None), default=1.0)
    for name, gradient in expected.gradients.items():
        own = actual.gradients[name]
        if gradient is None or not gradient.any():
            assert own is None or not own.any(), f"{name} has a gradient"
        else:
            assert own is not None, f"{name} has no gradient"
            assert_near(own, gradient, tolerance, f"gradient of {name}", scale=largest)
    for name, buffer in expected.buffers.items():
        assert_near(actual.buffers[name], buffer, tolerance, f"buffer {name}")
    assert torch.equal(actual.random_state, expected.random_state), "random generator"


def assert_near(actual: Tensor, expected: Tensor, tolerance: float, what: str, scale: float = 1.0) -> None:
    """Equal up to the tolerance, relative to the largest element or `scale`: that of a bias before a norm is noise."""
    assert actual.shape == expected.shape, what
    if torch.equal(actual, expected):
        return
    difference = (actual.double() - expected.double()).abs().max().item()
    scale = max(1.0, scale, expected.abs().max().item())
    assert difference <= tolerance * scale, f"{what} differs by {difference:.1e} of {scale:.1e}"


@contextmanager
def forbidden_calls(modules: list[nn.Module]) -> Iterator[None]:
    called: list[str] = []
    handles = [m.register_forward_pre_hook(lambda module, _: called.append(type(module).__name__)) for m in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    assert not called, f"dropped, yet called: {called[:3]}"


def computes_in_float32(network: nn.Module, inputs: Inputs) -> bool:
    """Whether a float64 network casts down inside, as the RMS norms of some libraries do."""

    class Watch(TorchDispatchMode):
        seen = False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            self.seen |= any(isinstance(v, Tensor) and v.dtype == torch.float32 for v in tree_leaves(result))
            return result

    with Watch() as watch, torch.no_grad():
        copy.deepcopy(network)(**inputs)
    return watch.seen
