"""How much learning lies on a path through a traced forward."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from ..graph.module_kinds import ModuleKinds, once_of_a_kind
from ..graph.node_kinds import is_depthwise, node_parameters, num_layers
from ..graph.trace_errors import UntraceableError
from ..graph.tracing import trace_forward
from ..torch_internals import child_at

SCALE_METHODS = ("view", "reshape", "mul", "unsqueeze")


@dataclass(frozen=True)
class PathContent:
    """What is learned on a chain of nodes.

    `parametrised` counts nodes with parameters and `scaling` those among them that only multiply by a
    vector; `modules` counts children and weight matrices, not single vectors; `layers` weight matrices
    and kernels, `depthwise` those among them that filter each channel by itself, as pooling does; `joins`
    the operations on several values, concatenation apart: a shortcut has none.
    """

    parametrised: int = 0
    scaling: int = 0
    modules: int = 0
    layers: int = 0
    depthwise: int = 0
    joins: int = 0

    def __add__(self, other: PathContent) -> PathContent:
        return PathContent(*(mine + its for mine, its in zip(self._counts(), other._counts(), strict=True)))

    def maximum(self, other: PathContent) -> PathContent:
        return PathContent(*map(max, self._counts(), other._counts()))

    def is_shortcut_beside(self, branch: PathContent) -> bool:
        """Whether this is the chain of a shortcut, the other that of its residual branch."""
        if self.joins:
            return False
        if self.parametrised == 0:
            return branch.modules > 0
        if self.parametrised == self.scaling:
            return branch.parametrised > branch.scaling
        return self.layers - self.depthwise == 1 and branch.layers - branch.depthwise > 1

    def _counts(self) -> tuple[int, ...]:
        return self.parametrised, self.scaling, self.modules, self.layers, self.depthwise, self.joins


def content_of(module: nn.Module, node: fx.Node, kinds: ModuleKinds | None = None) -> PathContent:
    """What a single node of `module`'s forward adds to a chain."""
    parameters = node_parameters(module, node)
    if not parameters:
        return PathContent()
    layers = num_layers(module, node)
    if node.op != "call_module":
        return PathContent(1, int(layers == 0), int(layers > 0), layers)
    child = child_at(module, str(node.target))
    return PathContent(
        1,
        int(not layers and once_of_a_kind(kinds, _only_scales, child)),
        1,
        layers,
        sum(map(is_depthwise, child.modules())),
    )


def _only_scales(module: nn.Module) -> bool:
    """Whether the module, no layer, multiplies its input by a vector and does nothing else."""
    if len(list(module.parameters())) != 1:
        return False
    try:
        graph = trace_forward(module)
    except UntraceableError:
        return False
    operations = [node for node in graph.nodes if node.op not in ("placeholder", "get_attr", "output")]
    return all(getattr(node.target, "__name__", node.target) in SCALE_METHODS for node in operations)
