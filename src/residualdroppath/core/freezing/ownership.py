"""Who owns a module and a parameter: one branch, or the trunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..discovery.found import Discovery
from ..torch_internals import child_at, modules_below, own_children, own_parameters

TRUNK = -1
Edge = tuple[int, str]  # (id of a module, name of its child or parameter)
Reached = tuple[dict[int, nn.Module], list["Slot"]]


@dataclass(frozen=True)
class Slot:
    """Where a parameter hangs. Its object may be replaced there (`load_state_dict(assign=True)`)."""

    module: nn.Module
    name: str

    @property
    def parameter(self) -> nn.Parameter | None:
        parameters = own_parameters(self.module)
        return parameters[self.name] if self.name in parameters else None  # a scripted module's has no `get`


@dataclass(frozen=True)
class Ownership:
    """Slots and modules by owner: the index of a branch, or `TRUNK`.

    What two branches use, or a branch and the trunk, belongs to the trunk; `shared` names it.
    """

    slots: dict[int, list[Slot]]
    modules: dict[int, list[nn.Module]]
    shared: tuple[str, ...]


def assign_owners(model: nn.Module, discovery: Discovery) -> Ownership:
    """Each module and parameter to the only branch from whose roots it is reached, else to the trunk."""
    branches = discovery.branches
    cuts = {edge for branch in branches for root in branch.roots for edge in _edges(branch.block, root)}
    reached = {TRUNK: _reach(*_used_by_trunk(model, discovery), cuts | discovery.idle)}
    for index, branch in enumerate(branches):
        modules, slots = _resolve(branch.block, branch.roots)
        reached[index] = _reach(modules, slots, set())
    _add_the_unused(reached, _reach([model], [], cuts))

    owner_of: dict[int, int] = {}
    shared: dict[int, None] = {}
    for owner, (modules, slots) in reached.items():
        for key in {*modules, *(id(slot.parameter) for slot in slots)}:
            if key in owner_of and owner_of[key] != owner:
                shared.setdefault(key)
            owner_of[key] = owner if key not in shared else TRUNK

    for branch in branches:  # used twice within one forward
        modules, slots = _reach(*_resolve(branch.block, branch.shares), set())
        for key in {*modules, *(id(slot.parameter) for slot in slots)}:
            shared.setdefault(key)
            owner_of[key] = TRUNK
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    result = Ownership(
        slots={owner: [] for owner in reached},
        modules={owner: [] for owner in reached},
        shared=tuple(names[key] for key in names if key in shared),
    )
    placed: set[int | Edge] = set()
    for modules, slots in reached.values():
        for key, module in modules.items():
            if key not in placed:
                placed.add(key)
                result.modules[owner_of[key]].append(module)
        for slot in slots:
            if (edge := (id(slot.module), slot.name)) not in placed:
                placed.add(edge)
                result.slots[owner_of[id(slot.parameter)]].append(slot)
    return result


def _used_by_trunk(model: nn.Module, discovery: Discovery) -> tuple[list[nn.Module], list[Slot]]:
    """The model, and what forwards of the trunk use that hangs in a branch too; not what was replaced since."""
    modules, slots, present = [model], [], set(modules_below(model))
    for module, names in discovery.deep_uses.items():
        if module not in present:
            continue
        paths = {path for path, _ in module.named_modules(remove_duplicate=False)}
        still_there = [name for name in names if name.rpartition(".")[0] in paths]
        for used, into in zip(_resolve(module, still_there), (modules, slots), strict=True):
            into += used
    return modules, slots


def _add_the_unused(reached: dict[int, Reached], everything: Reached) -> None:
    """To the trunk, what no forward was seen to use."""
    used = {key for modules, slots in reached.values() for key in {*modules, *(id(slot.parameter) for slot in slots)}}
    modules, slots = reached[TRUNK]
    modules.update({key: module for key, module in everything[0].items() if key not in used})
    slots += [slot for slot in everything[1] if id(slot.parameter) not in used]


def _resolve(block: nn.Module, names: Sequence[str]) -> tuple[list[nn.Module], list[Slot]]:
    """Children and parameters of a block as modules and as single parameters."""
    modules: list[nn.Module] = []
    slots: list[Slot] = []
    for root in names:
        parent_path, _, name = root.rpartition(".")
        parent = child_at(block, parent_path)
        child = own_children(parent).get(name)
        if child is not None:
            modules.append(child)
        elif own_parameters(parent).get(name) is not None:
            slots.append(Slot(parent, name))
    return modules, slots


def _edges(block: nn.Module, root: str) -> list[Edge]:
    """Where a child or parameter hangs. Tracing calls a child of two names by the first."""
    parent_path, _, name = root.rpartition(".")
    parent = child_at(block, parent_path)
    child = own_children(parent).get(name)
    names = [name] if child is None else [other for other, its in own_children(parent).items() if its is child]
    return [(id(parent), name) for name in names]


def _reach(roots: Sequence[nn.Module], slots: Sequence[Slot], cuts: set[Edge]) -> Reached:
    """Modules and parameter slots below `roots`, not passing through the edges in `cuts`."""
    modules: dict[int, nn.Module] = {}
    found = list(slots)
    stack = list(reversed(roots))
    while stack:
        module = stack.pop()
        if id(module) in modules:
            continue
        modules[id(module)] = module
        found += [
            Slot(module, name)
            for name, parameter in own_parameters(module).items()
            if parameter is not None and (id(module), name) not in cuts
        ]
        stack += [
            child
            for name, child in reversed(own_children(module).items())
            if child is not None and (id(module), name) not in cuts
        ]
    return modules, found
