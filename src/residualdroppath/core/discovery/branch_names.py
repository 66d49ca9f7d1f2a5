"""The names of residual adds, by what their branch begins with."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from ..graph.node_kinds import node_parameters, num_layers
from ..graph.tracing import adds_its_inputs, inlined_paths
from ..torch_internals import child_at
from .branch_subgraph import ResidualAdd, levels_of, with_holders


def name_adds(adds: list[ResidualAdd], block: nn.Module) -> dict[str, ResidualAdd]:
    """The adds by the first child in their branch with a weight matrix or kernel (`attn`, not the norm before it).

    Of nested ones that begin with the same child, the name goes to the level that has more branches.
    """
    levels = levels_of(adds)
    if any(sum(add.node in outer.nodes for add in level) > 1 for level in levels[1:] for outer in levels[0]):
        levels.reverse()
    named: dict[str, ResidualAdd] = {}
    for add in (add for level in levels for add in level):
        used = [(str(node.target), num_layers(block, node), node_parameters(block, node)) for node in add.nodes]
        with_weights = [name for name, layers, _ in used if layers]
        first = (with_weights or [name for name, _, parameters in used if parameters])[0]
        suffix = _child_as_a_whole(first, add, block)
        count = sum(other.split("@")[0] == suffix for other in named)
        named[suffix if not count else f"{suffix}@{count + 1}"] = add
    in_order = dict(sorted(named.items(), key=lambda item: adds.index(item[1])))
    return with_holders(in_order)


def _child_as_a_whole(name: str, add: ResidualAdd, block: nn.Module) -> str:
    """The child that holds a part called `name`, if it is inlined for that and all its layers are in the branch."""
    ends = [place for place, letter in enumerate(name) if letter == "."]
    inlined = inlined_paths(add.node.graph)
    for path in (name[:end] for end in ends):
        parts = (node for node in add.node.graph.nodes if str(node.target).startswith(f"{path}."))
        if path in inlined and not adds_its_inputs(child_at(block, path)):
            if all(node in add.nodes for node in parts if num_layers(block, node)):
                return path
    return name


def known_as(suffix: str, known: Collection[str]) -> str:
    """The name of the same branch where another form of the call reaches deeper (`attns.0` for `attns.0.attn`)."""
    if suffix in known:
        return suffix
    near = [own for own in known if f"{suffix}.".startswith(f"{own}.") or own.startswith(f"{suffix}.")]
    return max(near, key=len, default=suffix)
