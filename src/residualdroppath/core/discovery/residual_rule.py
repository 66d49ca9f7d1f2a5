"""Which adds of a traced forward are residual, and which nodes are the branch.

The rule: an add is residual if one operand reaches a shared ancestor through parameter-free
operations only (a learned scale counts as such), or through one projection (one convolution or linear
layer, with norm or pooling), and the other operand has the longer chain of parametrised modules: that
operand is the branch. Two kinds of sum have that form and are not residual: re-parametrised layers
(RepVGG), where parallel convolutions and an identity fold into one, and the cells of searched
architectures (NASNet), which concatenate several sums.

A branch is whole: what else uses a part of what computes it is cut off and named, and none of several values that
one call returns is a branch by itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from torch import fx, nn

from ..graph.module_kinds import ModuleKinds
from ..graph.node_kinds import (
    adds_or_subtracts,
    is_activation,
    is_add,
    is_concatenation,
    is_convolution,
    is_item,
    is_linear,
    is_logarithm,
    is_part,
    is_product,
    operand,
    upstream,
)
from .branch_subgraph import NotResidual, ResidualAdd, extract_branch
from .data_flow import DataFlow
from .loss_terms import loss_terms


def find_residual_adds(
    graph: fx.Graph, module: nn.Module, may_be_shortcut: Collection[str] = (), kinds: ModuleKinds | None = None
) -> tuple[list[ResidualAdd], list[NotResidual]]:
    """All residual adds of `module`'s traced forward, nested ones too, and the other adds; in order.

    Arguments named in `may_be_shortcut` count as a shortcut, though the branch does not stem from
    them: such adds are marked as guesses.
    """
    flow = _Rule(graph, module, may_be_shortcut, kinds)
    judged = [flow.judge(node) for node in graph.nodes if is_add(node)]
    return (
        [add for add in judged if isinstance(add, ResidualAdd)],
        [add for add in judged if isinstance(add, NotResidual)],
    )


class _Rule(DataFlow):
    """The rule, applied to the adds of one forward in order."""

    def __init__(self, graph: fx.Graph, module: nn.Module, may_be_shortcut: Collection[str], kinds: ModuleKinds | None):
        super().__init__(graph, module, kinds)
        self.may_be_shortcut = may_be_shortcut
        self.losses = loss_terms(graph, module)

    def judge(self, node: fx.Node) -> ResidualAdd | NotResidual | None:
        """The residual add that `node` is, why it is not one, or None where its operands are unrelated."""
        operands = [operand(node, 0), operand(node, 1)]
        ancestors = [upstream(side, self.data_inputs) & self.data for side in operands]
        shared = ancestors[0] & ancestors[1]
        if not shared:
            return self.guess(node, operands)
        if sources := _read_different_outputs(shared, ancestors):
            calls = [source for source in sources if self.weigh(source).parametrised]
            names = tuple(str(call.target) for call in calls)
            reason = (
                f"its two sides are different outputs of one call of {', '.join(names)}, which has to run for either"
            )
            return NotResidual(node, reason, returned_by=self.read_by_both(ancestors)) if names else None
        chains = [self.chain(side, shared) for side in operands]
        for branch in (1, 0):
            if chains[1 - branch].is_shortcut_beside(chains[branch]):
                if self.finds_unread(operands[branch], shared):
                    return self.judge(node)
                projects = chains[1 - branch].layers > 0
                sides = operands[1 - branch], operands[branch]
                reason = self.is_other_kind_of_sum(node) or self.has_other_sides(*sides, shared)
                if not reason and projects:
                    reason = self.is_no_projection(*sides, shared)
                if reason:
                    return NotResidual(node, reason, returned_by=self.read_by_both(ancestors))
                starts = self.starts_of(operands[1 - branch], shared)
                self.shortcut_of[node] = operand(node, 1 - branch)
                path = tuple(n for n in self.graph.nodes if n in self.between(operands[1 - branch], shared))
                found = extract_branch(self.graph, self.module, node, branch, path)
                return self.whole(found, node, operands[branch], starts)
        if any(chain.parametrised for chain in chains):
            reason = self.is_other_kind_of_sum(node) or "its two sides are of equal standing"
            return NotResidual(node, reason, returned_by=self.read_by_both(ancestors))
        return None

    def guess(self, node: fx.Node, operands: list[fx.Node]) -> ResidualAdd | NotResidual | None:
        """The residual add that `node` is if an argument is its shortcut, its branch parametrised."""
        for branch in (1, 0):
            start = upstream(operands[1 - branch], self.data_inputs)
            inputs = {member for member in start if member.op == "placeholder"}
            if inputs and all(str(given.target) in self.may_be_shortcut for given in inputs):
                side = upstream(operands[branch], self.data_inputs)
                weight = self.chain(operands[branch], {member for member in side if member.op == "placeholder"})
                if self.chain(operands[1 - branch], inputs).is_shortcut_beside(weight):
                    found = extract_branch(self.graph, self.module, node, branch, ())
                    return replace(found, is_guess=True) if isinstance(found, ResidualAdd) else None
        return None

    def whole(
        self, found: ResidualAdd | NotResidual, node: fx.Node, end: fx.Node, starts: set[fx.Node]
    ) -> ResidualAdd | NotResidual:
        """The residual add, if all that computes its branch can be left out with it."""
        after = self.following(starts) - starts
        computing = upstream(end, lambda n: [] if n in starts else self.data_inputs(n)) & after
        calls = [n for n in self.graph.nodes if n in computing and n.op == "call_module" and self.weigh(n).parametrised]
        calls = [call for call in calls if not self.gates(call, end)]
        for call in reversed(calls):  # the nearest is named
            if self.feeds_another_sum(call, node, computing):
                reason = f"one call of {call.target} feeds several sums, so none of them can drop it"
                return NotResidual(node, reason, str(call.target))
        own = found.nodes if isinstance(found, ResidualAdd) else ()
        kept_back = {n for n in computing - set(own) if self.weigh(n).parametrised}
        returning_more = [call for call in calls if call in kept_back and any(map(is_item, call.users))]
        called = tuple(str(call.target) for call in returning_more)
        if isinstance(found, NotResidual):
            return replace(found, returned_by=called)
        for call in returning_more:
            items = [user for user in call.users if is_item(user) and user in computing]
            if any((computing | {node}).issuperset(item.users) for item in items):
                reason = f"{call.target} computes its branch and returns more, which is used elsewhere"
                return NotResidual(node, reason, returned_by=called)
        names = (str(n.target) for n in self.graph.nodes if n in kept_back)
        return replace(found, cut_off=tuple(dict.fromkeys(names)))

    def gates(self, call: fx.Node, end: fx.Node) -> bool:
        """Whether a branch is an output of the call times what more layers than one compute of another (AdaLN-Zero).

        What gives several branches their scales, shifts and gates is a part of none of them.
        """
        after = self.following({call}) - {call}
        while not is_product(end) and not self.weigh(end).parametrised and len(self.data_inputs(end)) == 1:
            (end,) = self.data_inputs(end)
        factors = self.data_inputs(end) if is_product(end) else []
        inside = [upstream(factor, self.data_inputs) & after for factor in factors]
        layers = [sum(self.weigh(member).layers for member in its) for its in inside]
        return len(factors) == 2 and all(inside) and min(layers) == 0 and max(layers) > 1

    def feeds_another_sum(self, call: fx.Node, node: fx.Node, computing: set[fx.Node]) -> bool:
        """Whether a call that returns several values adds others of them elsewhere, themselves or projected."""
        found = {user for user in call.users if is_item(user) and user not in computing}
        for other in self.graph.nodes if found else ():
            inputs = self.data_inputs(other)
            if found.isdisjoint(inputs) or other is node:
                continue
            if adds_or_subtracts(other) and len(inputs) == 2:
                return True
            if len(inputs) == 1 or is_product(other):
                found.add(other)
        return False

    def is_other_kind_of_sum(self, node: fx.Node) -> str:
        """Why a sum of residual form is not residual; empty if it is."""
        if not self.losses.isdisjoint(node.all_input_nodes):
            return "it sums losses or other single numbers, not features"
        for user in node.users:
            if is_concatenation(user) and sum(map(is_add, user.all_input_nodes)) > 2:
                return "it is one of several sums that are concatenated, as in the cells of NASNet"
        top = node
        while len(top.users) == 1 and is_add(next(iter(top.users))):
            top = next(iter(top.users))
        terms = [self.past_norms_and_scales(term) for term in _terms(top)]
        convolutions = [term for term in terms if is_convolution(term, self.module)]
        if len(convolutions) > 1 and len({tuple(term.all_input_nodes) for term in convolutions}) == 1:
            return "its terms are parallel convolutions: one re-parametrised layer, as in RepVGG"
        return ""

    def has_other_sides(self, shortcut: fx.Node, branch: fx.Node, shared: set[fx.Node]) -> str:
        """Why the sides of a sum are not those of a residual one; empty if they are."""
        if self.is_enlarged(branch, shared) and not self.is_enlarged(shortcut, shared):
            return "its longer side is resized, as in a feature pyramid or a U-net"
        between = [self.between(side, shared) for side in (shortcut, branch)]
        if any(map(is_logarithm, between[0])):
            return "its shorter side is a logarithm: a head refines boxes or probabilities"
        parts = [{(n.args[0], str(n.args[1:])) for n in side if is_part(n) and n.args[0] in shared} for side in between]
        wholes = [{whole for whole, _ in side} for side in parts]
        if not wholes[0].isdisjoint(wholes[1]) and parts[0].isdisjoint(parts[1]):
            return "its sides read different parts of one value"
        return ""

    def is_no_projection(self, shortcut: fx.Node, branch: fx.Node, shared: set[fx.Node]) -> str:
        """Why a shortcut of one layer is none; empty if it is."""
        sides = [self.between(side, shared) for side in (shortcut, branch)]
        if any(is_activation(node, self.module) for node in sides[0]):
            return "its shorter side is more than a projection: it has an activation or an embedding"
        end = branch
        while end in sides[1] and not self.weigh(end).parametrised:
            sources = self.data_inputs(end)
            if len(sources) != 1 or (is_product(end) and len(end.all_input_nodes) > 1):
                break
            end = sources[0]
        factors = [factor for factor in end.all_input_nodes if is_product(end) and factor.op != "get_attr"]
        if len(factors) > 1 and any(self.is_read_by_both(factor, shared) for factor in factors):
            return "its longer side is a product with what both sides read, as attention scores are"
        if all(is_linear(node, self.module) for node in sides[1]):
            return "its sides are linear maps of one input: one re-parametrised layer, as with a low-rank adapter"
        entries = [node for node in sides[1] if not shared.isdisjoint(self.data_inputs(node))]
        if all(map(is_part, entries)) and not any(map(is_part, sides[0])):
            return "its longer side reads a part of what its shorter side projects"
        return ""


def _terms(node: fx.Node) -> list[fx.Node]:
    """What a sum of sums adds up."""
    if not is_add(node):
        return [node]
    return [term for side in node.all_input_nodes for term in _terms(side)]


def _read_different_outputs(shared: set[fx.Node], ancestors: list[set[fx.Node]]) -> list[fx.Node]:
    """Where the two sides meet only in what returned or held several values, each side taking others: those."""
    sides = [{user for source in shared for user in source.users if user in side - shared} for side in ancestors]
    taken = [{(user.all_input_nodes[0], str(user.args[1:])) for user in side if is_item(user)} for side in sides]
    all_taken = all(len(side) == len(items) > 0 for side, items in zip(sides, taken, strict=True))
    if not (all_taken and taken[0].isdisjoint(taken[1])):
        return []
    sources = [{source for source, _ in items} for items in taken]
    return [source for source in shared if source in sources[0] & sources[1]] or [*sources[0] | sources[1]]
