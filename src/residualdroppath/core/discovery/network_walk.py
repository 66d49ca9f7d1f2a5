"""Find the residual branches of any network, in order of execution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from ..graph.module_kinds import ModuleKinds
from ..graph.shape_guards import has_guards
from ..graph.trace_errors import REENTRANT, UntraceableError
from ..graph.tracing import TracedCall
from ..graph.tracing_sandbox import stand_ins_pass_for_values
from ..torch_internals import child_at, modules_below, own_children
from . import known_blocks  # noqa: F401  (registers them)
from .block_branches import (
    BlockBranches,
    GivenCall,
    branches_of_calls,
    find_block_branches,
    is_the_only_path,
    takes_optional_shortcut,
)
from .branch_subgraph import ResidualAdd
from .found import Discovery, FoundBranch, NoResidualBranchError
from .module_roles import is_container, is_library_leaf, may_hold_branches, overwrites_outputs, with_parameters
from .nesting import Candidate, is_open
from .recorded_calls import RecordedCalls, SplitParametersError, arguments_of, record_calls
from .registry import how_to_register, registered_block


def discover(model: nn.Module, example: Any = None) -> Discovery:
    """All residual branches of `model`: those of one call, where an example batch is given.

    The example is what the model is called with: a tensor, a tuple of arguments or a dict of keyword arguments.
    Raises `NoResidualBranchError` if there is none, `ValueError` where the model cannot run on the example.
    """
    kinds = ModuleKinds(model)
    return _Walk(model, None if example is None else _calls_on(model, example, kinds), kinds).result()


def discover_in_call(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], kinds: ModuleKinds | None = None
) -> Discovery | None:
    """As `discover`, of a call that the user makes: the model's errors are the user's to see.

    None where a part runs under activation checkpointing of the reentrant kind, which its block refuses.
    """
    kinds = kinds or ModuleKinds(model)
    calls = record_calls(model, args, kwargs, may_hold_branches, kinds)
    if any(reason.startswith(REENTRANT) for reason in calls.failures.values()):
        return None
    return _Walk(model, calls, kinds).result()


def _calls_on(model: nn.Module, example: Any, kinds: ModuleKinds) -> RecordedCalls:
    args, kwargs = arguments_of(example)
    try:
        return record_calls(model, args, kwargs, may_hold_branches, kinds)
    except SplitParametersError:
        raise
    except Exception as error:
        raise ValueError(
            f"`example` must be a batch that the model can be called with (a tensor, a tuple of arguments, or a dict "
            f"of keyword arguments), got {_described(example)}; {type(model).__name__} raised {type(error).__name__}: "
            f"{error}"
        ) from error


def _described(example: Any) -> str:
    if isinstance(example, torch.Tensor):
        return f"a tensor of shape {tuple(example.shape)}"
    if isinstance(example, dict):
        return "{" + ", ".join(f"{key!r}: {_described(value)}" for key, value in example.items()) + "}"
    if isinstance(example, (tuple, list)):
        return "(" + ", ".join(map(_described, example)) + ")"
    return type(example).__name__


class _Walk:
    """Visits each module once, in order of execution where forwards can be traced.

    `candidates` are branches, nested ones too; which of them count is decided at the end. `notes` are entries of the
    result, each with the candidate that it is about the inside of.
    """

    def __init__(self, model: nn.Module, calls: RecordedCalls | None, kinds: ModuleKinds):
        self.model = model
        self.calls = calls
        self.kinds = kinds
        self.given: dict[nn.Module, list[GivenCall]] = {}  # by module, how forwards that were traced call it
        self.found = Discovery(kinds=kinds)
        self.seen: set[nn.Module] = set()
        self.inlined: set[nn.Module] = set()
        self.candidates: list[Candidate] = []
        self.notes: list[tuple[Candidate | None, Callable[[], None]]] = []
        self.joint: set[tuple[type, type]] = set()  # classes of blocks, and of children whose call feeds several sums
        self.with_parameters = with_parameters(model)
        self.num_parents = Counter(
            child for module in modules_below(model) for child in {*own_children(module).values()} if child is not None
        )

    def result(self) -> Discovery:
        with stand_ins_pass_for_values(self.model):  # once for all traces
            self.visit(self.model, "", inside=None)
        self.reject_joint()
        blocks: dict[nn.Module, int] = {}
        for candidate in self.candidates:
            if candidate.counts and (branch := candidate.branch):
                self.found.branches.append(replace(branch, block_index=blocks.setdefault(branch.block, len(blocks))))
        for inside, note in self.notes:
            if is_open(inside):
                note()
        for candidate in self.candidates:
            if candidate.branch and not candidate.counts:
                self.found.rejected_adds[candidate.branch.name] = candidate.why_not()
        if not self.found.branches:
            raise NoResidualBranchError(self.nothing_found())
        return self.found

    def reject_joint(self) -> None:
        """Where one call feeds several sums, the last of its kind is no branch either, though only one sum is read."""
        for candidate in self.candidates:
            for node in candidate.add.nodes if candidate.add else ():
                if candidate.branch and node.op == "call_module":
                    block, name = candidate.branch.block, str(node.target)
                    if (type(block), type(child_at(block, name))) in self.joint:
                        candidate.reason = f"one call of {name} feeds several sums elsewhere in the network"

    def visit(self, module: nn.Module, path: str, inside: Candidate | None) -> None:
        """Visit a module and its children; `inside` is the innermost branch it lies in, if any."""
        if module in self.seen or module not in self.with_parameters:
            return
        self.seen.add(module)
        registered = registered_block(module)
        if self.calls is not None and module not in self.calls.order:  # its children may be called all the same
            self.visit_children(module, path, {}, None, inside)
        elif isinstance(module, torch.jit.ScriptModule):
            self.note_untraceable(module, path, inside, "compiled by torch.jit")
        elif registered is not None:
            roots = registered.branches_of(module)
            named = self.named([FoundBranch("", name, module, path, 0, roots[name]) for name in roots])
            places = {branch.suffix: self.record(branch, inside) for branch in named}
            owners = {root: places[name] for name, its in roots.items() for root in its}
            self.visit_children(module, path, owners, None, inside)
        elif is_container(module):
            self.visit_children(module, path, {}, None, inside)
        elif not (is_library_leaf(module) or (inside and self.with_parameters.isdisjoint(module.children()))):
            self.trace(module, path, inside)  # of a layer inside a branch nothing can come of use; tracing takes time

    def trace(self, module: nn.Module, path: str, inside: Candidate | None) -> None:
        num_before = len(self.candidates)
        try:
            adds = self.branches_of(module)
        except UntraceableError as error:
            self.visit_children(module, path, {}, None, inside)
            self.found.needs_call |= self.calls is None
            self.note_untraceable(module, path, inside, str(error))
            holds_inplace = any(getattr(child, "inplace", False) is True for child in module.modules())
            if holds_inplace or len(self.candidates) > num_before:
                self.notes.append((inside, self.note_overwriting))
            return
        self.note_use_of_children(module, adds)
        if module in self.inlined:  # its adds are those of the module that calls it
            self.visit_children(module, path, {}, adds, inside)
            return
        self.inlined.update(child_at(module, path) for path in adds.inlined())
        self.in_order(module, path, adds, inside)

    def branches_of(self, module: nn.Module) -> BlockBranches:
        read = self.found.outputs_read.get(module)
        if self.calls is None:
            adds = self.without_call(module, read)
            self.found.needs_call |= adds.guesses
            return adds
        if calls := self.calls.traced.get(module):
            if len(calls) > 1:
                self.found.several_forms.add(module)
            use = read, tuple(calls)  # modules that are alike share the traces of their calls
            adds = self.kinds.once(lambda module: self.in_calls(module, calls, read), module, use)
            if adds.found and (reasons := [call.not_to_run for call in calls if call.not_to_run]):
                raise UntraceableError(reasons[0])
            return adds
        raise UntraceableError(self.calls.failures[module])

    def without_call(self, module: nn.Module, read: frozenset[int] | None) -> BlockBranches:
        given = self.given.get(module) if self.num_parents[module] == 1 else None
        use = "forward", read, given and repr(given)
        return self.kinds.once(lambda module: find_block_branches(module, read, given, self.kinds), module, use)

    def in_calls(self, module: nn.Module, calls: Sequence[TracedCall], read: frozenset[int] | None) -> BlockBranches:
        adds = branches_of_calls(module, calls, read, self.kinds)
        if not adds.found and takes_optional_shortcut(adds, module, calls):  # timm's DlaBasic
            with suppress(UntraceableError):
                without = find_block_branches(module, read, kinds=self.kinds)
                return without if without.found else adds
        return adds

    def in_order(self, module: nn.Module, path: str, adds: BlockBranches, inside: Candidate | None) -> None:
        """Record the branches of a block, each after the nested blocks that run before it."""
        parts = ((suffix, part) for suffix, both in adds.parts.items() for its in both for part in its)
        owner_of = {part: suffix for suffix, part in parts}  # the inner of two, which comes last
        found = [
            FoundBranch("", suffix, module, path, 0, roots, add.describe_shortcut(), add.describe_users(), shares)
            for (suffix, add), (roots, shares) in zip(adds.found.items(), adds.parts.values(), strict=True)
        ]
        places: dict[str, Candidate] = {}
        for branch in self.named(found, [suffix for suffix in adds.found if adds.holder(suffix)]):
            for name in adds.children_called_before[branch.suffix]:
                if (owner := owner_of.get(name)) is None or adds.is_around(owner, branch.suffix):
                    self.visit(child_at(module, name), _join(path, name), places[owner] if owner else inside)
            holder = adds.holder(branch.suffix)
            around = places[holder] if holder else inside
            places[branch.suffix] = self.record(branch, around, adds.found[branch.suffix])
        self.note_adds(module, path, adds, places, inside)
        owners = {part: places[suffix] for part, suffix in owner_of.items()}
        self.visit_children(module, path, owners, adds, inside)

    def note_adds(
        self, module: nn.Module, path: str, adds: BlockBranches, places: dict[str, Candidate], inside: Candidate | None
    ) -> None:
        """What else there is to know of a forward, for the places where it turns out to count."""
        for other in adds.others:
            if other.call:
                self.joint.add((type(module), type(child_at(module, other.call))))
            reason = partial(self.found.rejected_adds.__setitem__, _join(path, other.node.name), other.reason)
            holder = adds.holder_of(other.node)
            self.notes.append((places[holder] if holder else inside, reason))

        def note() -> None:
            counting = [suffix for suffix, place in places.items() if place.counts]
            for suffix in counting:
                if (branch := places[suffix].branch) and (names := adds.found[suffix].cut_off):
                    self.found.cut_off[branch.name] = f"{', '.join(names)}, used elsewhere too"
            if names := adds.deep_uses(counting):
                self.found.deep_uses[module] = names
            if any(overwrites_outputs(graph, module, is_block=bool(counting)) for graph in adds.graphs):
                self.note_overwriting()

        self.notes.append((inside, note))

    def note_overwriting(self) -> None:
        self.found.outputs_may_be_overwritten = True

    def note_untraceable(self, module: nn.Module, path: str, inside: Candidate | None, reason: str) -> None:
        name, text = path or type(module).__name__, f"{type(module).__name__}: {reason}"
        self.notes.append((inside, lambda: self.found.untraceable.__setitem__(name, text)))

    def named(self, branches: list[FoundBranch], nested: Collection[str] = ()) -> list[FoundBranch]:
        """With full names: the path of the block alone, if it has one branch and those `nested` in it."""
        is_alone = len(branches) - len(nested) == 1
        suffixes = ["" if is_alone and branch.suffix not in nested else branch.suffix for branch in branches]
        names = [_join(branch.block_path, suffix) for branch, suffix in zip(branches, suffixes, strict=True)]
        return [replace(b, name=name or type(b.block).__name__) for b, name in zip(branches, names, strict=True)]

    def record(self, branch: FoundBranch, inside: Candidate | None, add: ResidualAdd | None = None) -> Candidate:
        self.candidates.append(candidate := Candidate(branch, inside, add))
        return candidate

    def note_use_of_children(self, module: nn.Module, adds: BlockBranches) -> None:
        for name, child in module.named_children():
            if name not in adds.children_used:
                self.found.idle.add((id(module), name))
            if self.num_parents[child] > 1 and child in self.found.outputs_read:
                del self.found.outputs_read[child]
        for name, read in adds.outputs_read.items():
            if self.num_parents[child := child_at(module, name)] == 1:
                self.found.outputs_read[child] = read
        for name, call in adds.calls_of_children if self.calls is None else ():
            if call not in (given := self.given.setdefault(child_at(module, name), [])):
                given.append(call)

    def visit_children(
        self,
        module: nn.Module,
        path: str,
        owners: dict[str, Candidate],
        adds: BlockBranches | None,
        inside: Candidate | None,
    ) -> None:
        never = self.never_called(module, adds)
        for name in self.in_order_of_calls(module, adds):
            place = owners.get(name, inside)
            if name in never:
                reason = f"it lies in {_join(path, name)}, which the forward of {type(module).__name__} does not call"
                place = Candidate(None, place, reason=reason)
            self.visit(child_at(module, name), _join(path, name), place)

    def never_called(self, module: nn.Module, adds: BlockBranches | None) -> set[str]:
        """Children that no call of a forward can run, as far as its graphs tell: none depends on flags or shapes."""
        if adds is None or not is_the_only_path(adds, module) or any(map(has_guards, adds.graphs)):
            return set()
        idle = {name for owner, name in self.found.idle if owner == id(module)}
        return {name for name, child in module.named_children() if name in idle and self.num_parents[child] == 1}

    def in_order_of_calls(self, module: nn.Module, adds: BlockBranches | None) -> Iterator[str]:
        """Names of descendants to visit: those called, in order of the calls, then the other children."""
        called = adds.children_called if adds is not None else ()
        yield from called
        names = [name for name, _ in module.named_children() if name not in called]
        if self.calls is not None:  # a container is called in the order of what it holds
            first = {name: self.first_call(child_at(module, name)) for name in names}
            names.sort(key=first.__getitem__)
        yield from names

    def first_call(self, module: nn.Module) -> int:
        assert self.calls is not None
        order = self.calls.order
        return min((order[member] for member in module.modules() if member in order), default=len(order))

    def nothing_found(self) -> str:
        lines = [
            f"No residual branch was found in {type(self.model).__name__}. Looked for: an add in a module's forward, "
            "one operand of which reaches a common input without parameters (or through one projection) while the "
            "other runs through parametrised modules, as in `x + self.branch(x)`."
        ]
        if self.found.rejected_adds:
            lines.append("Adds that are not residual: " + _first_few(self.found.rejected_adds) + ".")
        if self.found.untraceable:
            lines.append("Could not be traced: " + _first_few(self.found.untraceable) + ".")
        lines.append(how_to_register(self.found.likely_block(self.model)))
        return " ".join(lines)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _first_few(reasons: dict[str, str], limit: int = 3) -> str:
    few = [f"{name} ({reason})" for name, reason in list(reasons.items())[:limit]]
    return "; ".join(few) + (f"; and {len(reasons) - limit} more" if len(reasons) > limit else "")
