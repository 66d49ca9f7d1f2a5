"""What a module is in a network: a layer, a container, or something whose forward may hold residual adds."""

from __future__ import annotations

import torch
from torch import fx, nn

from ..graph.node_kinds import is_inplace, is_layer_of_torch
from ..torch_internals import child_at, own_children, own_parameters
from .registry import registered_block


def overwrites_outputs(graph: fx.Graph, module: nn.Module, *, is_block: bool) -> bool:
    """Whether a forward may overwrite what it is given or, outside a block, what a child returned."""
    for node in graph.nodes:
        if is_inplace(node, module) and node.all_input_nodes:
            source = node.all_input_nodes[0]
            given = source.op == "placeholder"
            fresh = source.op == "call_module" and is_library_leaf(child_at(module, str(source.target)))
            if given or not (is_block or fresh):
                return True
    return False


def is_library_leaf(module: nn.Module) -> bool:
    """PyTorch's own layers, which hold no residual add of a shape that tracing could find."""
    return is_layer_of_torch(module) and not type(module).__module__.endswith((".container", ".transformer"))


def with_parameters(model: nn.Module) -> set[nn.Module]:
    """All modules that have parameters, of their own or below."""
    has: dict[nn.Module, bool] = {}

    def look(module: nn.Module) -> bool:
        if module not in has:
            below = [look(child) for child in own_children(module).values() if child is not None]
            has[module] = any(below) or any(own is not None for own in own_parameters(module).values())
        return has[module]

    look(model)
    return {module for module, found in has.items() if found}


def is_container(module: nn.Module) -> bool:
    """Whether the module, like a ModuleList, only holds others."""
    return type(module).forward is nn.Module.forward


def may_hold_branches(module: nn.Module) -> bool:
    """Whether the forward is looked into for residual adds."""
    skipped = isinstance(module, torch.jit.ScriptModule) or is_container(module) or is_library_leaf(module)
    return not skipped and any(True for _ in module.parameters()) and registered_block(module) is None
