"""One forward and backward of any network, all that it leaves behind, and how two of them differ."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Inputs = Mapping[str, Tensor]  # keyword arguments of a forward


@dataclass(frozen=True)
class Trace:
    """What one forward and backward leaves behind."""

    output: Tensor
    gradients: dict[str, Tensor | None]
    buffers: dict[str, Tensor]
    random_state: Tensor


def flat_output(output: Any) -> Tensor:
    """All that a network returns as one vector."""
    values = tree_leaves(dict(output) if isinstance(output, dict) else output)
    return torch.cat([v.flatten().double() for v in values if isinstance(v, Tensor) and v.is_floating_point()])


def backward(output: Any) -> Tensor:
    """Backward from a loss that no norm, sign or permutation of the outputs leaves alone; the flat output."""
    flat = flat_output(output)
    weights = torch.linspace(0.5, 1.5, flat.numel(), dtype=flat.dtype)
    (weights * flat + flat.square()).mean().backward()  # a sum over images would diverge
    return flat.detach()


def run(network: nn.Module, inputs: Inputs, seed: int = 7) -> Trace:
    """Gradients are added to those there."""
    torch.default_generator.manual_seed(seed)
    return trace_of(network, backward(network(**inputs)))


def trace_of(network: nn.Module, output: Tensor) -> Trace:
    """After a backward."""
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in network.named_parameters()}
    return Trace(output, gradients, buffers_of(network), torch.get_rng_state())


def buffers_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def parameters_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def attributes(network: nn.Module) -> list[Any]:
    """What hangs on each module, down to the flags of parameters and the hooks."""
    flags = [parameter.requires_grad for parameter in network.parameters()]
    return [flags] + [
        {name: dict(value) if isinstance(value, dict) else value for name, value in vars(module).items()}
        for module in network.modules()
    ]


def attributes_set_by(network: nn.Module, inputs: Inputs) -> list[tuple[int, str]]:
    """Attributes that the network's own forwards set, by the place of their module in `attributes`, and name."""
    before = attributes(network)
    with torch.no_grad():
        network(**inputs)
        in_training = attributes(network)
        network.eval()(**inputs)
        network.train()(**inputs)
    return [
        (number, name)
        for number, (own, *others) in enumerate(zip(before, in_training, attributes(network), strict=True))
        for name in ({*own, *others[-1]} if number else ())
        if any(_is_changed(own.get(name), other.get(name)) for other in others)
    ]


def _is_changed(before: Any, after: Any) -> bool:
    if after is before:
        return False
    if isinstance(before, dict) and isinstance(after, dict):
        before, after = list(before.items()), list(after.items())
    if isinstance(before, (tuple, list)) and isinstance(after, (tuple, list)):
        return len(before) != len(after) or any(map(_is_changed, before, after))
    return isinstance(after, Tensor) or isinstance(before, Tensor) or bool(after != before)


def assert_identical(actual: Trace, expected: Trace, what: str) -> None:
    """Bit for bit."""
    torch.testing.assert_close(
        vars(actual), vars(expected), rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{what}: {text}"
    )


def assert_near(actual: Tensor, expected: Tensor, tolerance: float, what: str, scale: float = 1.0) -> None:
    """Equal up to `tolerance`, relative to the largest element or to `scale` where that is above 1."""
    assert actual.shape == expected.shape, what
    if torch.equal(actual, expected):
        return
    difference = (actual.double() - expected.double()).abs().max().item()
    scale = max(1.0, scale, expected.abs().max().item())
    assert difference <= tolerance * scale, f"{what} differs by {difference:.1e} of {scale:.1e}"


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


@contextmanager
def calls_of(network: nn.Module) -> Iterator[Counter[str]]:
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
