"""Which nodes of a traced forward serve one residual branch alone, so that they can be skipped with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import fx, nn

from ..graph.node_kinds import is_inplace, is_metadata, node_parameters, operand, upstream
from ..graph.shape_guards import is_guard


@dataclass(frozen=True)
class ResidualAdd:
    """An add of a traced forward whose operand number `branch_operand` is a residual branch.

    `nodes` computes the branch, in order; `inputs` are the values from outside that it reads.
    `shortcut_nodes` lie on the shortcut's side; `is_guess`: an argument was taken for the shortcut. `cut_off` names
    children and parameters that compute a part of the branch, but are used elsewhere too. `inside` is the name of the
    branch of the same forward that this add lies in, if any.
    """

    node: fx.Node
    branch_operand: int
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    shortcut_nodes: tuple[fx.Node, ...] = ()
    is_guess: bool = False
    cut_off: tuple[str, ...] = ()
    inside: str | None = None

    @property
    def branch(self) -> fx.Node:
        return operand(self.node, self.branch_operand)

    @property
    def shortcut(self) -> fx.Node:
        return operand(self.node, 1 - self.branch_operand)

    def describe_shortcut(self) -> str:
        """In words, what lies on the shortcut: names of children and operations."""
        steps = [_title(node) for node in self.shortcut_nodes if not is_metadata(node)]
        return ", ".join(dict.fromkeys(steps)) or "identity"

    def describe_users(self) -> str:
        """In words, what the sum is handed to."""
        users = [_title(node) for node in self.node.users if not is_metadata(node) and not is_guard(node)]
        return ", ".join(dict.fromkeys(users))


@dataclass(frozen=True)
class NotResidual:
    """An add of two computed values that was left alone, with the reason.

    `call`: one that feeds several adds; `returned_by`: those of which the two sides are different outputs.
    """

    node: fx.Node
    reason: str
    call: str = ""
    returned_by: tuple[str, ...] = ()


def extract_branch(
    graph: fx.Graph,
    module: nn.Module,
    node: fx.Node,
    branch_operand: int,
    shortcut_nodes: tuple[fx.Node, ...],
) -> ResidualAdd | NotResidual:
    """The branch at `branch_operand` of the add `node`."""
    order = list(graph.nodes)
    before = order[: order.index(node)]
    kept = _with_writes(upstream(operand(node, 1 - branch_operand)), before, module)  # also serves the shortcut
    members = _members(before, node, operand(node, branch_operand), kept)
    nodes = tuple(member for member in before if member in members)
    inputs = tuple(
        dict.fromkeys(source for member in nodes for source in member.all_input_nodes if source not in members)
    )
    if not any(node_parameters(module, member) for member in nodes):
        return NotResidual(node, "its branch is also used elsewhere, so it cannot be skipped")
    for member in nodes:
        if member.all_input_nodes and member.all_input_nodes[0] in inputs and is_inplace(member, module):
            return NotResidual(node, "its branch overwrites the shortcut (set inplace=False in its first layer)")
    for other in before[before.index(nodes[0]) :]:
        # The branch will run at the place of the add: what it reads must last until then.
        if other not in members and other.all_input_nodes and other.all_input_nodes[0] in inputs:
            if is_inplace(other, module):
                return NotResidual(node, f"{other} overwrites what its branch reads (set inplace=False there)")
    return ResidualAdd(node, branch_operand, nodes, inputs, shortcut_nodes)


def _with_writes(values: set[fx.Node], before: list[fx.Node], module: nn.Module) -> set[fx.Node]:
    """The values, what writes to them without a result that is used, and all that this is computed from."""
    for candidate in reversed(before):
        if candidate not in values and not candidate.users and is_inplace(candidate, module) and candidate.args:
            if candidate.args[0] in values:
                values = values | upstream(candidate)
    return values


def _members(before: list[fx.Node], node: fx.Node, branch: fx.Node, kept: set[fx.Node]) -> set[fx.Node]:
    """Nodes that nothing but the branch needs, with the loose ends that hang on them.

    A loose end has no user: an assertion on shapes, or `self.act(x)` that works in place.
    """
    loose: set[fx.Node] = set()
    for candidate in reversed(before):
        if (
            candidate.op not in ("placeholder", "get_attr")
            and candidate is not branch
            and loose.issuperset(candidate.users)
        ):
            loose.add(candidate)
    needed = {branch}  # by the branch, or by a loose end on it
    attached: set[fx.Node] = set()
    for _ in before:
        for candidate in reversed(before):
            if candidate in needed:
                needed.update(candidate.all_input_nodes)
        grown = {end for end in loose if any(s in needed - kept for s in end.all_input_nodes)} - attached
        if not grown:
            break
        attached |= grown
        needed |= grown
    members: set[fx.Node] = set()
    for candidate in reversed(before):
        if candidate in needed and candidate not in kept and candidate.op != "placeholder":
            if (members | {node} if candidate is branch else members).issuperset(candidate.users):
                members.add(candidate)
    for candidate in before:  # a loose end that hangs on what others use stays with them
        if candidate in members & attached and members.isdisjoint(candidate.all_input_nodes):
            members.remove(candidate)
    return members


def levels_of(adds: list[ResidualAdd]) -> list[list[ResidualAdd]]:
    """The adds by level: those in no branch of another, those in a branch of these, and so on; in order."""
    levels: list[list[ResidualAdd]] = []
    rest = adds
    while rest:
        inside = {node for add in rest for node in add.nodes}
        levels.append([add for add in rest if add.node not in inside])
        rest = [add for add in rest if add.node in inside]
    return levels


def with_holders(named: Mapping[str, ResidualAdd]) -> dict[str, ResidualAdd]:
    """The adds of one graph, each after the one whose branch it lies in, with the name of that."""
    holders: dict[str, str | None] = {}
    for name, add in named.items():
        around = [other for other, its in named.items() if add.node in its.nodes]
        holders[name] = min(around, key=lambda other: len(named[other].nodes), default=None)
    ordered: dict[str, ResidualAdd] = {}

    def take(holder: str | None) -> None:
        for name, add in named.items():
            if holders[name] == holder:
                ordered[name] = replace(add, inside=holder)
                take(name)

    take(None)
    return ordered


def _title(node: fx.Node) -> str:
    return node.op if node.op == "output" else getattr(node.target, "__name__", str(node.target))
