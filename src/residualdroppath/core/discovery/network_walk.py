"""Find the residual branches of any network, in order of execution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from ..graph.node_kinds import is_inplace, is_layer_of_torch
from ..graph.tracing import UntraceableError
from . import known_blocks  # noqa: F401  (registers them)
from .block_branches import BlockBranches, branches_of_calls, find_block_branches
from .found import Discovery, FoundBranch, NoResidualBranchError
from .recorded_calls import RecordedCalls, record_calls
from .registry import registered_block, registering_call


def discover(model: nn.Module, example: Any = None) -> Discovery:
    """All residual branches of `model`: those of one call, where an example batch is given.

    The example is what the model is called with: a tensor, a tuple of arguments or a dict of keyword arguments.
    Raises `NoResidualBranchError` if there is none, `ValueError` where the model cannot run on the example.
    """
    return _Walk(model, None if example is None else _calls_on(model, example)).result()


@dataclass(frozen=True)
class Call:
    """The arguments of a call of the model that goes on: what it raises is the user's to see."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _calls_on(model: nn.Module, example: Any) -> RecordedCalls:
    if isinstance(example, Call):
        return record_calls(model, example.args, example.kwargs, _may_hold_branches)
    args, kwargs = ((), example) if isinstance(example, dict) else (example, {})
    args = args if isinstance(args, (tuple, list)) else (args,)
    try:
        return record_calls(model, args, kwargs, _may_hold_branches)
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


def _may_hold_branches(module: nn.Module) -> bool:
    """Whether the forward is looked into for residual adds."""
    skipped = isinstance(module, torch.jit.ScriptModule) or _is_container(module) or _is_library_leaf(module)
    return not skipped and any(True for _ in module.parameters()) and registered_block(module) is None


class _Walk:
    """Visits each module once, in order of execution where forwards can be traced."""

    def __init__(self, model: nn.Module, calls: RecordedCalls | None):
        self.model = model
        self.calls = calls
        self.found = Discovery()
        self.seen: set[nn.Module] = set()
        self.num_blocks = 0
        self.num_parents = Counter(child for module in model.modules() for child in module.children())

    def result(self) -> Discovery:
        self.visit(self.model, "", inside="")
        if not self.found.branches:
            raise NoResidualBranchError(self.nothing_found())
        return self.found

    def visit(self, module: nn.Module, path: str, inside: str) -> None:
        """Visit a module and its children; `inside` names the branch it lies in, if any."""
        if module in self.seen or not any(True for _ in module.parameters()):
            return
        self.seen.add(module)
        registered = registered_block(module)
        if self.calls is not None and module not in self.calls.order:  # its children may be called all the same
            self.visit_children(module, path, {}, None, inside)
        elif isinstance(module, torch.jit.ScriptModule):
            self.found.untraceable[path or type(module).__name__] = f"{type(module).__name__}: compiled by torch.jit"
        elif registered is not None:
            roots = registered.branches_of(module)
            self.record(self.named([FoundBranch("", name, module, path, 0, roots[name]) for name in roots]), inside)
            self.visit_children(module, path, {} if inside else roots, None, inside)
        elif _is_container(module):
            self.visit_children(module, path, {}, None, inside)
        elif not (_is_library_leaf(module) or (inside and not _has_parametrised_children(module))):
            self.trace(module, path, inside)  # of a layer inside a branch nothing can come of use; tracing takes time

    def trace(self, module: nn.Module, path: str, inside: str) -> None:
        try:
            adds = self.branches_of(module)
        except UntraceableError as error:
            num_blocks = self.num_blocks
            self.visit_children(module, path, {}, None, inside)
            self.found.needs_call |= self.calls is None
            if not inside:
                self.found.untraceable[path or type(module).__name__] = f"{type(module).__name__}: {error}"
                holds_inplace = any(getattr(child, "inplace", False) is True for child in module.modules())
                self.found.outputs_may_be_overwritten |= holds_inplace or self.num_blocks > num_blocks
            return
        if not inside:
            if names := adds.deep_uses():
                self.found.deep_uses[module] = names
            for other in adds.others:
                self.found.rejected_adds[_join(path, other.node.name)] = other.reason
            self.found.outputs_may_be_overwritten |= any(
                _overwrites_outputs(graph, module, is_block=bool(adds.found)) for graph in adds.graphs
            )
        self.note_use_of_children(module, adds)
        self.in_order(module, path, adds, inside)

    def branches_of(self, module: nn.Module) -> BlockBranches:
        outputs_read = self.found.outputs_read.get(module)
        if self.calls is None:
            adds = find_block_branches(module, outputs_read)
            self.found.needs_call |= adds.guesses
            return adds
        if calls := self.calls.traced.get(module):
            if len(calls) > 1:
                self.found.several_forms.add(module)
            return branches_of_calls(module, calls, outputs_read)
        raise UntraceableError(self.calls.failures.get(module, "its forward is not called"))

    def in_order(self, module: nn.Module, path: str, adds: BlockBranches, inside: str) -> None:
        """Record the branches of a block, each after the nested blocks that run before it."""
        roots = {suffix: adds.roots(suffix) for suffix in adds.found}
        parts = {suffix: (*roots[suffix], *adds.shares(suffix)) for suffix in adds.found}
        in_branches = {part for names in parts.values() for part in names}
        found = [
            FoundBranch(
                "", suffix, module, path, 0, roots[suffix], add.describe_shortcut(), add.describe_users(),
                adds.shares(suffix),
            )
            for suffix, add in adds.found.items()
        ]  # fmt: skip
        named = self.named(found)
        block_index = None
        for branch in named:
            for name in adds.children_called_before(branch.suffix):
                if name not in in_branches:
                    self.visit(module.get_submodule(name), _join(path, name), inside)
            block_index = self.record([branch], inside, block_index)
        self.visit_children(module, path, parts, adds, inside)

    def named(self, branches: list[FoundBranch]) -> list[FoundBranch]:
        names = [_join(branch.block_path, branch.suffix if len(branches) > 1 else "") for branch in branches]
        return [replace(b, name=name or type(b.block).__name__) for b, name in zip(branches, names, strict=True)]

    def record(self, branches: list[FoundBranch], inside: str, block_index: int | None = None) -> int | None:
        """Take branches of one block into the result; the block's number, new if None was given."""
        if inside:
            self.found.rejected_adds.update({branch.name: f"it lies inside the branch {inside}" for branch in branches})
            return None
        if block_index is None and branches:
            block_index, self.num_blocks = self.num_blocks, self.num_blocks + 1
        self.found.branches += [replace(branch, block_index=block_index) for branch in branches]
        return block_index

    def note_use_of_children(self, module: nn.Module, adds: BlockBranches) -> None:
        used = adds.names_used()
        for name, child in module.named_children():
            if not any(other == name or other.startswith(f"{name}.") for other in used):
                self.found.idle.add((id(module), name))
            if self.num_parents[child] > 1 and child in self.found.outputs_read:
                del self.found.outputs_read[child]
        for name, read in adds.outputs_read().items():
            if self.num_parents[child := module.get_submodule(name)] == 1:
                self.found.outputs_read[child] = read

    def visit_children(
        self,
        module: nn.Module,
        path: str,
        branches: dict[str, tuple[str, ...]],
        adds: BlockBranches | None,
        inside: str,
    ) -> None:
        owner = {
            root: _join(path, suffix if len(branches) > 1 else "") or type(module).__name__
            for suffix, roots in branches.items()
            for root in roots
        }
        for name in self.in_order_of_calls(module, adds):
            self.visit(module.get_submodule(name), _join(path, name), inside or owner.get(name, ""))

    def in_order_of_calls(self, module: nn.Module, adds: BlockBranches | None) -> Iterator[str]:
        """Names of descendants to visit: those called, in order of the calls, then the other children."""
        if adds is not None:
            yield from adds.children_called()
        names = [name for name, _ in module.named_children()]
        if self.calls is not None:  # a container is called in the order of what it holds
            first = {name: self.first_call(module.get_submodule(name)) for name in names}
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
        lines.append(
            "If the network has residual branches, register the class of their block, for instance "
            f"`{registering_call(self.found.likely_block(self.model))}`, with its own forward and branches."
        )
        return " ".join(lines)


def _overwrites_outputs(graph: fx.Graph, module: nn.Module, *, is_block: bool) -> bool:
    """Whether a forward may overwrite what it is given or, outside a block, what a child returned."""
    for node in graph.nodes:
        if is_inplace(node, module) and node.all_input_nodes:
            source = node.all_input_nodes[0]
            given = source.op == "placeholder"
            fresh = source.op == "call_module" and _is_library_leaf(module.get_submodule(str(source.target)))
            if given or not (is_block or fresh):
                return True
    return False


def _is_library_leaf(module: nn.Module) -> bool:
    """PyTorch's own layers, which hold no residual add of a shape that tracing could find."""
    return is_layer_of_torch(module) and not type(module).__module__.endswith((".container", ".transformer"))


def _has_parametrised_children(module: nn.Module) -> bool:
    return any(any(True for _ in child.parameters()) for child in module.children())


def _is_container(module: nn.Module) -> bool:
    """Whether the module, like a ModuleList, only holds others."""
    return type(module).forward is nn.Module.forward


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _first_few(reasons: dict[str, str], limit: int = 3) -> str:
    few = [f"{name} ({reason})" for name, reason in list(reasons.items())[:limit]]
    return "; ".join(few) + (f"; and {len(reasons) - limit} more" if len(reasons) > limit else "")
