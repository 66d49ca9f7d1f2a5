"""How values flow through one traced forward: from its arguments, along shortcuts, and what is learned on the way."""

from __future__ import annotations

import functools

from torch import fx, nn

from ..graph.module_kinds import ModuleKinds
from ..graph.node_kinds import (
    has_no_gradient,
    is_concatenation,
    is_convolution,
    is_inplace,
    is_item,
    is_part,
    upstream,
    value_inputs,
)
from .argument_reads import unread_arguments
from .path_content import PathContent, content_of
from .resizing import enlarges


class DataFlow:
    """The values of a forward that come from its arguments, with the residual adds that are known so far."""

    def __init__(self, graph: fx.Graph, module: nn.Module, kinds: ModuleKinds | None = None):
        self.graph = graph
        self.module = module
        # Calls of children, and arguments of which they read no value.
        self.unread: set[tuple[fx.Node, fx.Node]] = set()
        self.writes = _writes_in(graph, module)
        self.data = self.nodes_of_data()
        self.shortcut_of: dict[fx.Node, fx.Node] = {}  # for the adds found so far
        self.weigh = functools.cache(functools.partial(content_of, module, kinds=kinds))
        self.enlarges = functools.cache(functools.partial(enlarges, module, kinds=kinds))
        self.unread_by = functools.cache(functools.partial(unread_arguments, module))

    def nodes_of_data(self) -> set[fx.Node]:
        """The nodes whose values come from the arguments of the forward."""
        self.data: set[fx.Node] = set()
        for node in self.graph.nodes:
            if node.op == "placeholder" or self.data_inputs(node):
                if not has_no_gradient(node) or node in self.writes:
                    self.data.add(node)
        return self.data

    def data_inputs(self, node: fx.Node) -> list[fx.Node]:
        inputs = value_inputs(node)
        written = [write for source in inputs for write in self.writes.get(source, ()) if write < node]
        sources = dict.fromkeys((*inputs, *written))
        return [source for source in sources if source in self.data and (node, source) not in self.unread]

    def sources(self, node: fx.Node) -> list[fx.Node]:
        """What the node is computed from, past the branches found so far."""
        return [self.shortcut_of[node]] if node in self.shortcut_of else self.data_inputs(node)

    def between(self, end: fx.Node, shared: set[fx.Node]) -> set[fx.Node]:
        """The nodes from the shared ancestors to `end`, past the branches found so far."""
        return self.path(end, shared) - shared - set(self.shortcut_of)

    def path(self, end: fx.Node, shared: set[fx.Node]) -> set[fx.Node]:
        """The nodes from the shared ancestors to `end`, the last shared ones included, past the branches found."""
        return upstream(end, lambda node: [] if node in shared else self.sources(node))

    def starts_of(self, shortcut: fx.Node, shared: set[fx.Node]) -> set[fx.Node]:
        """The values that the shortcut begins with."""
        return self.path(shortcut, shared) & shared

    def following(self, starts: set[fx.Node]) -> set[fx.Node]:
        """The nodes themselves and all that is computed from them."""
        found = set(starts)
        for node in self.graph.nodes:
            if not found.isdisjoint(self.data_inputs(node)):
                found.add(node)
        return found

    def chain(self, end: fx.Node, shared: set[fx.Node]) -> PathContent:
        """The heaviest chain from the shared ancestors to `end`; of a residual add, its shortcut's."""
        heaviest = dict.fromkeys(shared, PathContent())
        for node in self.graph.nodes:
            inputs = [heaviest[source] for source in self.sources(node) if source in heaviest]
            if node not in shared and inputs:
                constants = (source for source in value_inputs(node) if source.op == "get_attr")
                own = sum(map(self.weigh, constants), start=self.weigh(node))
                joins = PathContent(joins=int(len(inputs) > 1 and not is_concatenation(node)))
                heaviest[node] = functools.reduce(PathContent.maximum, inputs) + own + joins
        return heaviest.get(end, PathContent(joins=1))  # a branch found before may have cut its path

    def is_enlarged(self, end: fx.Node, shared: set[fx.Node]) -> bool:
        """Whether all that leads from the shared ancestors to `end` passes one node that enlarges."""
        path = self.path(end, shared) - shared
        if not any(map(self.enlarges, path)):
            return False
        passed: dict[fx.Node, frozenset[fx.Node]] = dict.fromkeys(shared, frozenset())
        for node in self.graph.nodes:
            if node in path and (before := [passed[source] for source in self.sources(node) if source in passed]):
                passed[node] = frozenset.intersection(*before) | {node}
        return any(map(self.enlarges, passed.get(end, ())))

    def is_read_by_both(self, factor: fx.Node, shared: set[fx.Node]) -> bool:
        """Whether a factor comes from the shared ancestors unlearned; a mask that the forward is given does not."""
        if factor not in self.data:
            return True
        return not shared.isdisjoint(upstream(factor, self.data_inputs)) and not self.chain(factor, shared).parametrised

    def past_norms_and_scales(self, term: fx.Node) -> fx.Node:
        """The convolution whose output `term` norms or multiplies by a parameter; else `term` itself."""
        node = term
        while len(sources := self.data_inputs(node)) == 1 and not is_convolution(node, self.module):
            weight = self.weigh(node)
            scales = getattr(node.target, "__name__", node.target) in ("mul", "mul_", "imul", "multiply")
            if not (scales or (node.op == "call_module" and weight.parametrised and not weight.layers)):
                return term
            node = sources[0]
        return node if is_convolution(node, self.module) else term

    def finds_unread(self, end: fx.Node, shared: set[fx.Node]) -> bool:
        """Whether a child that computes `end` turns out to read no value of what it is given."""
        between = self.between(end, shared)
        learned = {n for n in between if self.weigh(n).parametrised}
        first = (n for n in learned if n.op == "call_module" and upstream(n, self.data_inputs) & learned == {n})
        found = {(call, given) for call in first for given in self.unread_by(call)}
        is_new = not found <= self.unread
        self.unread |= found
        self.data = self.nodes_of_data() if is_new else self.data
        return is_new

    def read_by_both(self, sides: list[set[fx.Node]]) -> tuple[str, ...]:
        """Children with parameters of whose outputs each side reads some."""
        found: list[str] = []
        for call in self.graph.nodes:
            items = {user for user in call.users if is_item(user)}
            if call.op == "call_module" and self.weigh(call).parametrised:
                if not any(items.isdisjoint(side) for side in sides):
                    found.append(str(call.target))
        return tuple(found)


def _writes_in(graph: fx.Graph, module: nn.Module) -> dict[fx.Node, list[fx.Node]]:
    """By value, the operations that write to it or to a part of it, in order."""
    found: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        if is_inplace(node, module) and node.args and isinstance(target := node.args[0], fx.Node):
            found.setdefault(target, []).append(node)
            while is_part(target) and isinstance(target := target.args[0], fx.Node):
                found.setdefault(target, []).append(node)
    return found
