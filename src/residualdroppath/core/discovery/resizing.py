"""Whether a node enlarges feature maps: upsampling at its end, or more of it than of its opposite inside of a child."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import fx, nn

from ..graph.module_kinds import ModuleKinds, once_of_a_kind
from ..graph.node_kinds import (
    down_to_last,
    is_activation_layer,
    is_layer_of_torch,
    is_metadata,
    is_part,
    upstream,
    value_inputs,
)
from ..graph.trace_errors import UntraceableError
from ..graph.tracing import trace_forward
from ..torch_internals import AnyNorm, Convolution, child_at

ENLARGING = ("interpolate", "upsample", "pixel_shuffle", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
ENLARGING += ("upsample_nearest", "upsample_bilinear", "max_unpool1d", "max_unpool2d", "max_unpool3d")
UNPOOLING = (nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
UPSAMPLING = (nn.Upsample, nn.PixelShuffle, *UNPOOLING)
SHRINKING = ("mean", "amax", "pixel_unshuffle")
UNCHANGING = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.GroupNorm, nn.LayerNorm, AnyNorm)


def enlarges(module: nn.Module, node: fx.Node, kinds: ModuleKinds | None = None) -> bool:
    """Whether what the node returns is larger than what it is given; a child that ends in upsampling counts."""
    if node.op != "call_module":
        return _name(node) in ENLARGING
    return once_of_a_kind(kinds, _child_enlarges, child_at(module, str(node.target)))


def _child_enlarges(child: nn.Module) -> bool:
    if not any(map(_may_enlarge, child.modules())):
        return False
    return _steps_of_layer(_last_that_resizes(child)) > 0 or _steps_of(child) > 0


def _last_that_resizes(child: nn.Module) -> nn.Module:
    """The layer that ends a sequence, norms and activations apart."""
    while (last := down_to_last(child))[-1] is not child:
        layers = [layer for layer in last[-2] if not isinstance(layer, UNCHANGING) and not is_activation_layer(layer)]
        if not layers:
            return last[-1]
        child = layers[-1]
    return child


def _steps_of(module: nn.Module) -> int:
    """How often a module enlarges what it is given, less how often it shrinks it."""
    if (own := _steps_of_layer(module)) or not any(True for _ in module.children()) and is_layer_of_torch(module):
        return own
    if type(module).forward is nn.Sequential.forward:
        return sum(map(_steps_of, module.children()))
    try:
        graph = trace_forward(module)
    except UntraceableError:
        own = any(name in ENLARGING for name in _names_of(type(module).forward))
        return int(own) + sum(map(_steps_of, module.children()))
    return _steps_through(graph, module)


def _steps_through(graph: fx.Graph, module: nn.Module) -> int:
    """To the first value returned; where paths join, along the one that enlarges most."""
    steps: dict[fx.Node, int] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            steps[node] = 0
        elif node.op == "output":
            return next((steps[value] for value in node.all_input_nodes if value in steps), 0)
        elif (sources := [steps[source] for source in value_inputs(node) if source in steps]) and not is_metadata(node):
            steps[node] = max(sources) + _steps_of_node(node, module)
            if (size := _size_taken_from(node, steps)) is not None:
                steps[node] = size
    return 0


def _steps_of_node(node: fx.Node, module: nn.Module) -> int:
    if node.op == "call_module":
        return _steps_of(child_at(module, str(node.target)))
    if (name := _name(node)) in ENLARGING:
        factor = node.kwargs.get("scale_factor")
        return -1 if isinstance(factor, (int, float)) and factor < 1 else 1
    strided = node.target is operator.getitem and any(
        isinstance(part, slice) and part.step not in (None, 1) for part in _parts(node.args[1])
    )
    stride = node.args[3] if len(node.args) > 3 else node.kwargs.get("stride", 1)
    convolves = name in ("conv1d", "conv2d", "conv3d") and any(part != 1 for part in _parts(stride))
    return -int(name in SHRINKING or "_pool" in name or strided or convolves)


def _size_taken_from(node: fx.Node, steps: dict[fx.Node, int]) -> int | None:
    """The steps of the value whose shape is that of the resized one (`F.interpolate(x, size=y.shape[2:])`)."""
    if _name(node) not in ENLARGING:
        return None
    members = {member for source in node.all_input_nodes[1:] for member in upstream(source)} - steps.keys()
    shapes = {member.all_input_nodes[0] for member in members if is_metadata(member)}
    if not all(is_metadata(member) or is_part(member) for member in members):  # twice the shape, say
        return None
    return next((steps[value] for value in shapes if value in steps), None)


def _steps_of_layer(layer: nn.Module) -> int:
    if isinstance(layer, UPSAMPLING):
        return 1
    stride: Any = getattr(layer, "stride", 1)
    strided = any(part not in (1, None) for part in _parts(stride))
    if isinstance(layer, TRANSPOSED):
        return int(strided)
    pools = is_layer_of_torch(layer) and "Pool" in type(layer).__name__
    adapts = pools and "Adaptive" in type(layer).__name__
    return -int(
        adapts or isinstance(layer, nn.PixelUnshuffle) or (strided and (pools or isinstance(layer, Convolution)))
    )


def _may_enlarge(module: nn.Module) -> bool:
    """Cheap, so that few children have to be traced."""
    return isinstance(module, (*UPSAMPLING, *TRANSPOSED)) or _code_enlarges(type(module))


def _code_enlarges(module_class: type[nn.Module]) -> bool:
    """Whether a method of a class, or a function that it calls, names an operation that enlarges."""
    own = [base for base in module_class.__mro__ if issubclass(base, nn.Module) and not _is_of_torch(base)]
    methods = (function for base in own for function in vars(base).values() if inspect.isfunction(function))
    return any(name in ENLARGING for name in _names_in(methods, set()))


def _is_of_torch(thing: Any) -> bool:
    return str(thing.__module__).partition(".")[0] == "torch"


def _names_in(functions: Iterable[Callable[..., Any]], seen: set[Any]) -> Iterator[str]:
    for function in functions:
        function = inspect.unwrap(function)
        code = getattr(function, "__code__", None)
        if code is None or code in seen or _is_of_torch(function):
            continue
        seen.add(code)
        names = _names_of(function)
        yield from names
        called = (getattr(function, "__globals__", {}).get(name) for name in names)
        yield from _names_in([other for other in called if inspect.isfunction(other)], seen)


def _names_of(function: Any) -> list[str]:
    code = inspect.unwrap(function).__code__
    nested = [constant for constant in code.co_consts if inspect.iscode(constant)]
    return [name for part in (code, *nested) for name in part.co_names]


def _parts(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _name(node: fx.Node) -> str:
    return "" if node.op in ("get_attr", "output") else str(getattr(node.target, "__name__", node.target))
