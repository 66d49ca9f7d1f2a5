"""Which adds of a traced forward are residual, and which nodes are the branch.

The rule: an add is residual if one operand reaches a shared ancestor through parameter-free
operations only, or through one projection (one convolution or linear layer, with norm or pooling),
and the other operand has the longer chain of parametrised modules: that operand is the branch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx, nn

ADD_FUNCTIONS = (operator.add, operator.iadd, torch.add)
ADD_METHODS = ("add", "add_", "__add__", "__iadd__")
INPLACE_OPERATORS = (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem)
# What these return depends on the shape of a tensor, not on its values.
METADATA_METHODS = ("size", "dim", "ndimension", "numel", "stride", "new_zeros", "new_ones")
METADATA_ATTRIBUTES = ("shape", "ndim", "dtype", "device")


@dataclass(frozen=True)
class ResidualAdd:
    """An add of a traced forward whose operand number `branch_operand` is a residual branch.

    `nodes` computes the branch, in order; `inputs` are the values from outside that it reads.
    """

    node: fx.Node
    branch_operand: int
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]

    @property
    def branch(self) -> fx.Node:
        return _operand(self.node, self.branch_operand)

    @property
    def shortcut(self) -> fx.Node:
        return _operand(self.node, 1 - self.branch_operand)


@dataclass(frozen=True)
class NotResidual:
    """An add of two computed values that was left alone, with the reason."""

    node: fx.Node
    reason: str


def find_residual_adds(graph: fx.Graph, module: nn.Module) -> tuple[list[ResidualAdd], list[NotResidual]]:
    """All residual adds of `module`'s traced forward (the outermost where they nest), and the other adds."""
    flow = _Flow(graph, module)
    judged = [flow.judge(node) for node in graph.nodes if is_add(node)]
    found = [add for add in judged if isinstance(add, ResidualAdd)]
    inside = {node for add in found for node in add.nodes}
    return (
        [add for add in found if add.node not in inside],
        [add for add in judged if isinstance(add, NotResidual) and add.node not in inside],
    )


def is_add(node: fx.Node) -> bool:
    """Whether the node adds two values of the graph, neither of them scaled by `alpha`."""
    named = (node.op == "call_function" and node.target in ADD_FUNCTIONS) or (
        node.op == "call_method" and node.target in ADD_METHODS
    )
    return named and not node.kwargs and len(node.args) == 2 and all(isinstance(arg, fx.Node) for arg in node.args)


def is_inplace(node: fx.Node, module: nn.Module) -> bool:
    """Whether the node overwrites its first input."""
    if node.op == "call_module":
        child = module.get_submodule(str(node.target))
        while isinstance(child, nn.Sequential) and len(child) > 0:
            child = next((member for member in child if not isinstance(member, nn.Identity)), child[0])
        return getattr(child, "inplace", False) is True
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        return (
            node.target in INPLACE_OPERATORS
            or node.kwargs.get("inplace") is True
            or (name.endswith("_") and not name.startswith("_"))
        )
    return False


def node_parameters(module: nn.Module, node: fx.Node) -> list[nn.Parameter]:
    """Parameters that the node itself brings in, those of a called child included."""
    if node.op == "call_module":
        return list(module.get_submodule(str(node.target)).parameters())
    if node.op == "get_attr":
        value = operator.attrgetter(str(node.target))(module)
        return [value] if isinstance(value, nn.Parameter) else []
    return []


class _Flow:
    """How values flow through one traced forward."""

    def __init__(self, graph: fx.Graph, module: nn.Module):
        self.graph = graph
        self.module = module
        self.data: set[fx.Node] = set()  # nodes whose values come from the arguments of the forward
        for node in graph.nodes:
            if node.op == "placeholder" or self.data_inputs(node):
                if not _is_metadata(node):
                    self.data.add(node)

    def data_inputs(self, node: fx.Node) -> list[fx.Node]:
        return [source for source in node.all_input_nodes if source in self.data]

    def judge(self, node: fx.Node) -> ResidualAdd | NotResidual | None:
        """The residual add that `node` is, why it is not one, or None where its operands are unrelated."""
        operands = _operand(node, 0), _operand(node, 1)
        ancestors = [_upstream(operand, self.data_inputs) & self.data for operand in operands]
        shared = ancestors[0] & ancestors[1]
        if not shared:
            return None
        chains = [_Chain(self, operand, shared) for operand in operands]
        for branch in (1, 0):
            shortcut_chain, branch_chain = chains[1 - branch], chains[branch]
            direct = shortcut_chain.num_parametrised == 0 < branch_chain.num_parametrised
            projected = shortcut_chain.is_projection and branch_chain.num_layers > 1
            if direct or projected:
                return self.cut_out(node, branch, ancestors[1 - branch])
        if any(chain.num_parametrised for chain in chains):
            return NotResidual(node, "its two sides are of equal standing")
        return None

    def cut_out(self, node: fx.Node, branch_operand: int, kept: set[fx.Node]) -> ResidualAdd | NotResidual:
        """The nodes that serve the branch alone; those in `kept` serve the shortcut as well."""
        branch = _operand(node, branch_operand)
        upstream = _upstream(branch, lambda member: member.all_input_nodes)
        members: set[fx.Node] = set()
        for candidate in reversed(self.graph.nodes):
            if candidate in kept or candidate in (node, *node.users) or candidate.op in ("placeholder", "output"):
                continue
            # `self.act(x)` in place, its result unused, belongs where its input belongs.
            loose_end = not candidate.users and bool(upstream.intersection(candidate.all_input_nodes))
            users = members | {node} if candidate is branch else members
            if (candidate in upstream or loose_end) and users.issuperset(candidate.users):
                members.add(candidate)

        nodes = tuple(
            member
            for member in self.graph.nodes
            if member in members and (member.users or not members.isdisjoint(member.all_input_nodes))
        )
        members = set(nodes)
        inputs = tuple(
            dict.fromkeys(source for member in nodes for source in member.all_input_nodes if source not in members)
        )
        if not any(node_parameters(self.module, member) for member in nodes):
            return NotResidual(node, "its branch is also used elsewhere, so it cannot be skipped")
        for member in nodes:
            if member.all_input_nodes and member.all_input_nodes[0] in inputs and is_inplace(member, self.module):
                return NotResidual(node, "its branch overwrites the shortcut (set inplace=False in its first layer)")
        order = list(self.graph.nodes)
        for other in order[order.index(nodes[0]) : order.index(node)]:
            # The branch will run at the place of the add: what it reads must last until then.
            if other not in members and other.all_input_nodes and other.all_input_nodes[0] in inputs:
                if is_inplace(other, self.module):
                    return NotResidual(node, f"{other} overwrites what its branch reads (set inplace=False there)")
        return ResidualAdd(node, branch_operand, nodes, inputs)


class _Chain:
    """What lies between the shared ancestors and one operand of an add.

    `num_parametrised` counts nodes with parameters along the shortest path, `num_layers` weight
    matrices and kernels along the longest: norms and scales add nothing to the latter.
    """

    def __init__(self, flow: _Flow, operand: fx.Node, shared: set[fx.Node]):
        shortest = dict.fromkeys(shared, 0)
        longest = dict.fromkeys(shared, 0)
        for node in flow.graph.nodes:
            inputs = [source for source in flow.data_inputs(node) if source in shortest]
            if node in shared or not inputs:
                continue
            used = [node, *(source for source in node.all_input_nodes if source.op == "get_attr")]
            parameters = [parameter for source in used for parameter in node_parameters(flow.module, source)]
            shortest[node] = min(shortest[source] for source in inputs) + bool(parameters)
            longest[node] = max(longest[source] for source in inputs) + sum(p.dim() >= 2 for p in parameters)
        self.num_parametrised = shortest[operand]
        self.num_layers = longest[operand]
        self.is_projection = self.num_layers == 1 and self.num_parametrised > 0


def _operand(node: fx.Node, index: int) -> fx.Node:
    operand = node.args[index]
    assert isinstance(operand, fx.Node)
    return operand


def _is_metadata(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in METADATA_METHODS
    return node.op == "call_function" and node.target is getattr and node.args[1] in METADATA_ATTRIBUTES


def _upstream(node: fx.Node, inputs_of: Callable[[fx.Node], list[fx.Node]]) -> set[fx.Node]:
    """The node itself and all from which its value is computed."""
    found: set[fx.Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            stack.extend(inputs_of(current))
    return found
