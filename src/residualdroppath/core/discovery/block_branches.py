"""The residual adds of one block, over the ways to call it."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from ..graph.call_form import CallForm, form_of, forward_signature, numbers_in, plainest_form
from ..graph.module_kinds import ModuleKinds
from ..graph.node_kinds import is_add, is_used
from ..graph.shape_guards import is_guard
from ..graph.trace_errors import UntraceableError
from ..graph.tracing import TracedCall, inlined_paths, trace_kind
from . import inlining  # noqa: F401  (sets the rule of the tracer)
from .branch_names import known_as, name_adds
from .branch_subgraph import NotResidual, ResidualAdd
from .residual_rule import find_residual_adds
from .unread_outputs import leave_out_unread


class _Value:
    def __repr__(self) -> str:
        return "VALUE"


def _value_of(node: fx.Node) -> Any:
    return VALUE


VALUE = _Value()  # in the place of what the graph of a caller computes
GivenCall = tuple[tuple[Any, ...], Mapping[str, Any]]  # the arguments of a call, with `VALUE` for those


@dataclass(frozen=True)
class BlockBranches:
    """Residual adds by the last part of their branch's name, in order of execution, and the adds that are none.

    They hold of every module that is like the one whose forwards were traced.
    """

    graphs: tuple[fx.Graph, ...]
    found: dict[str, ResidualAdd]
    others: list[NotResidual]
    guesses: bool = False

    @functools.cached_property
    def parts(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """By branch, the children and parameters that only the branch names, and those that others name too."""
        return {suffix: (own := self._roots(suffix), self._shares(suffix, own)) for suffix in self.found}

    def _roots(self, suffix: str) -> tuple[str, ...]:
        mine = set(self.found[suffix].nodes)
        graph = self.found[suffix].node.graph
        elsewhere = {node.target for node in graph.nodes if _names_a_part(node) and node not in mine}
        used = (str(node.target) for node in self.found[suffix].nodes if _names_a_part(node))
        return tuple(dict.fromkeys(name for name in used if name not in elsewhere))

    def _shares(self, suffix: str, own: Collection[str]) -> tuple[str, ...]:
        nodes = (*self.found[suffix].nodes, *self.found[suffix].inputs)
        names = (str(node.target) for node in nodes if node.op == "get_attr" and is_used(node))
        called = (str(node.target) for node in self.found[suffix].nodes if node.op == "call_module")
        return tuple(dict.fromkeys(name for name in (*called, *names) if name not in own))

    @functools.cached_property
    def children_called(self) -> list[str]:
        """Dotted names, in order of the calls."""
        called = [str(node.target) for graph in self.graphs for node in graph.nodes if node.op == "call_module"]
        return list(dict.fromkeys(called))

    @functools.cached_property
    def calls_of_children(self) -> list[tuple[str, GivenCall]]:
        """By dotted name the arguments of each call."""
        calls = [node for graph in self.graphs for node in graph.nodes if node.op == "call_module"]
        given: Any = fx.map_arg([(node.args, node.kwargs) for node in calls], _value_of)
        return list(zip([str(node.target) for node in calls], given, strict=True))

    @functools.cached_property
    def children_called_before(self) -> dict[str, list[str]]:
        """By branch, those whose calls come before the first of it."""
        before: dict[str, list[str]] = {}
        for suffix, add in self.found.items():
            nodes = itertools.takewhile(lambda node, first=add.nodes[0]: node is not first, add.node.graph.nodes)
            before[suffix] = [str(node.target) for node in nodes if node.op == "call_module"]
        return before

    def deep_uses(self, branches: Collection[str]) -> tuple[str, ...]:
        """What the forward uses outside of `branches` though it hangs below a child (dotted names)."""
        if not any("." in str(node.target) for node in self.graphs[0].nodes):
            return ()
        in_branches = {node for suffix in branches for node in self.found[suffix].nodes}
        nodes = (node for node in self.graphs[0].nodes if _names_a_part(node) and node not in in_branches)
        return tuple(dict.fromkeys(name for node in nodes if "." in (name := str(node.target))))

    @functools.cached_property
    def children_used(self) -> set[str]:
        """Names of children that are used, or of which something below is."""
        used = (str(node.target) for graph in self.graphs for node in graph.nodes if _names_a_part(node))
        return {name.partition(".")[0] for name in used}

    def inlined(self) -> set[str]:
        """Paths of descendants whose forwards are part of these graphs."""
        return {path for graph in self.graphs for path in inlined_paths(graph)}

    def holder(self, suffix: str) -> str | None:
        """The branch of the same forward that this one lies in."""
        inside = self.found[suffix].inside
        return None if inside is None else known_as(inside, self.found)

    def is_around(self, suffix: str, other: str) -> bool:
        """Whether a branch of the same forward lies in the one called `suffix`."""
        holder = self.holder(other)
        return holder is not None and (holder == suffix or self.is_around(suffix, holder))

    def holder_of(self, node: fx.Node) -> str | None:
        """The innermost branch that a node is part of."""
        around = [suffix for suffix, add in self.found.items() if node in add.nodes]
        return min(around, key=lambda suffix: len(self.found[suffix].nodes), default=None)

    @functools.cached_property
    def outputs_read(self) -> dict[str, frozenset[int]]:
        """Of children that return several values, which are read; the others are not named."""
        read: dict[str, set[int | None]] = {}
        for graph in self.graphs:
            for node in graph.nodes:
                if node.op == "call_module":
                    users = [user for user in node.users if not is_guard(user)]
                    read.setdefault(str(node.target), set()).update(map(_item, users) if users else {None})
        return {name: frozenset(i for i in items if i is not None) for name, items in read.items() if None not in items}


def find_block_branches(
    module: nn.Module,
    outputs_read: frozenset[int] | None = None,
    given: Sequence[GivenCall] | None = None,
    kinds: ModuleKinds | None = None,
) -> BlockBranches:
    """What is added when the forward gets its required arguments alone, and when it gets the optional ones as well.

    `outputs_read` names the returned values that the caller reads, None for all; `given` are the calls of it, None
    where they are not known. Raises `UntraceableError`.
    """
    signature = forward_signature(module)
    plainest = plainest_form(signature)
    optional = tuple(name for name, default in plainest.constants.items() if default is None)
    others = {name: default for name, default in plainest.constants.items() if default is not None}
    forms = [(plainest, {}), *_other_forms(signature, given or (), others)]
    if optional:
        forms.append((CallForm(signature, (*plainest.values, *optional), others), {}))
    is_called_plainly = given is not None and all(form_of(signature, *call)[0].key == plainest.key for call in given)
    calls: list[TracedCall] = []
    failures: list[UntraceableError] = []
    for form, numbers in forms:
        if calls and is_called_plainly and not any(map(is_add, calls[0].graph.nodes)):
            break  # it adds nothing as it is called
        try:
            calls.append(trace_kind(module, form, numbers, kinds))
        except UntraceableError as error:
            failures.append(error)
    if not calls:
        raise failures[0]
    found = branches_of_calls(module, calls, outputs_read, kinds)
    return replace(found, guesses=found.guesses or bool(found.found and others and not given))


def _other_forms(
    signature: inspect.Signature, given: Sequence[GivenCall], others: Mapping[str, Any]
) -> list[tuple[CallForm, dict[str, Any]]]:
    """Forms of the calls that give arguments of `others` another value than their default, with their numbers."""
    forms: dict[Hashable, tuple[CallForm, dict[str, Any]]] = {}
    for args, kwargs in given if others else ():
        form, values = form_of(signature, args, kwargs)
        numbers = numbers_in(values)
        if any({**form.constants, **values}.get(name, default) != default for name, default in others.items()):
            forms[form.key, tuple(numbers.items())] = form, numbers
    return list(forms.values())


def branches_of_calls(
    module: nn.Module,
    calls: Sequence[TracedCall],
    outputs_read: frozenset[int] | None = None,
    kinds: ModuleKinds | None = None,
) -> BlockBranches:
    """What is added in these calls; a branch of several calls is the one of the first."""
    graphs = [leave_out_unread(call.graph, module, outputs_read, shortens=True) for call in calls]
    by_graph = [find_residual_adds(graph, module, kinds=kinds) for graph in graphs]
    known = name_adds(by_graph[0][0], module)
    found = dict(known)
    for adds, _ in by_graph[1:]:
        more = {known_as(suffix, known): add for suffix, add in name_adds(adds, module).items()}
        found = {**{suffix: found.get(suffix, add) for suffix, add in more.items()}, **found}
    return BlockBranches(tuple(graphs), found, by_graph[0][1], any(call.guesses for call in calls))


def takes_optional_shortcut(adds: BlockBranches, module: nn.Module, calls: Sequence[TracedCall]) -> bool:
    """Whether an add of these calls would be residual if an optional argument were its shortcut."""
    optional = [_optional_values(call.form) for call in calls]
    graphs = zip(adds.graphs, optional, strict=True)
    return any(names and find_residual_adds(graph, module, names)[0] for graph, names in graphs)


def is_the_only_path(adds: BlockBranches, module: nn.Module) -> bool:
    """Whether the forward has no options but those of which both forms were traced."""
    given = plainest_form(forward_signature(module)).constants.values()
    return all(value is None for value in given) and len(adds.graphs) == 1 + (len(given) > 0)


class OtherUse(Exception):
    """A call uses what is a residual branch in other calls, but not as one."""


def branches_for_call(
    graph: fx.Graph, module: nn.Module, form: CallForm, known: Collection[str], kinds: ModuleKinds | None = None
) -> dict[str, ResidualAdd]:
    """Of the branches `known`, those that one form of a call adds.

    An optional argument may carry the shortcut (timm's DlaBasic). Raises `OtherUse` where a known
    branch takes part in a form that cannot be dropped.
    """
    named = name_adds(find_residual_adds(graph, module, _optional_values(form), kinds)[0], module)
    near = {known_as(suffix, known): add for suffix, add in reversed(named.items())}  # the outer of two counts
    adds = {**near, **{suffix: add for suffix, add in named.items() if suffix in known}}
    for suffix in known:
        if suffix not in adds and any(_uses(node, suffix) for node in graph.nodes):
            raise OtherUse(f"called with {form.describe()}, it uses {suffix} otherwise than as a residual branch")
    return {suffix: add for suffix, add in adds.items() if suffix in known}


def _optional_values(form: CallForm) -> set[str]:
    """Values of a call that may be None."""
    parameters = form.signature.parameters
    return {name for name in form.values if name in parameters and parameters[name].default is None}


def _uses(node: fx.Node, name: str) -> bool:
    return _names_a_part(node) and f"{node.target}.".startswith(f"{name}.")


def _names_a_part(node: fx.Node) -> bool:
    """Whether the node uses a child or a parameter, more than its dtype, device or shape."""
    return node.op == "call_module" or (node.op == "get_attr" and is_used(node))


def _item(node: fx.Node) -> int | None:
    """Which of several values a node takes, if it does nothing else."""
    takes_one = node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"
    return node.args[1] if takes_one and isinstance(node.args[1], int) and node.args[1] >= 0 else None
