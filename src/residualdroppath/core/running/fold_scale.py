"""A branch times a factor for the price of a few parameters.

Scaling what a branch returns takes a pass over its activations, and another over their gradients. Where the branch
ends with a layer that is linear in its weight and bias, the factor goes there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules import module as for_all
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ..discovery.branch_subgraph import ResidualAdd
from ..graph.node_kinds import down_to_last, is_layer_of_torch

LINEAR_IN_PARAMETERS = (nn.Linear, _ConvNd, _BatchNorm, nn.GroupNorm, nn.LayerNorm)
HOOKS_FOR_ALL = ("_global_forward_pre_hooks", "_global_forward_hooks", "_global_backward_pre_hooks")
HOOKS_FOR_ALL += ("_global_backward_hooks",)
# Elements of the activations by which they must outnumber the parameters: multiplying these takes calls of its own.
MIN_ELEMENTS_TO_FOLD = 2**14


class FoldTarget:
    """What ends a branch: the child `target` of its block, down to the last layer in it.

    `called` are the children that the branch calls, a name for each call; `read` those whose parameters it reads.
    Children may be replaced, so the layer is looked up at every call.
    """

    def __init__(self, block: nn.Module, target: str, called: Sequence[str], read: Sequence[str]):
        self.block = block
        self.target = target
        self.called = tuple(called)
        self.read = tuple(read)

    def layer_to_scale(self, like: Tensor) -> nn.Module | None:
        """The layer, if its parameters can be scaled instead of its output, a tensor like `like`, and with profit.

        On a GPU passes over memory are cheap beside further calls, so there the output is scaled.
        """
        if like.device.type != "cpu":
            return None
        chain = down_to_last(self.block.get_submodule(self.target))
        last = chain[-1]
        able = (
            isinstance(last, LINEAR_IN_PARAMETERS)
            and is_layer_of_torch(last)
            and type(last._parameters.get("weight")) is nn.Parameter  # not of a subclass, sharded or quantised
            and last._parameters.keys() == {"weight", "bias"}
            and sum(p.numel() for p in last._parameters.values() if p is not None) + MIN_ELEMENTS_TO_FOLD
            <= like.numel()
            and not any(is_watched(child) for child in chain)
            and sum(_times_held(last, self.block.get_submodule(name)) for name in self.called) == 1
            and all(self.block.get_submodule(name) is not last for name in self.read)
        )
        return last if able else None


def fold_target(add: ResidualAdd, block: nn.Module) -> FoldTarget | None:
    """What ends the branch, if a child of the block does."""
    if add.branch.op != "call_module":
        return None
    called = [str(node.target) for node in add.nodes if node.op == "call_module"]
    read = [str(node.target).rpartition(".")[0] for node in add.nodes if node.op == "get_attr"]
    return FoldTarget(block, str(add.branch.target), called, read)


@contextmanager
def scaled_parameters(layer: nn.Module, factor: float) -> Iterator[None]:
    """Meanwhile the layer computes `factor` times its output; gradients reach its own parameters."""
    own = layer._parameters
    layer.__dict__["_parameters"] = {name: p if p is None else p * factor for name, p in own.items()}
    try:
        yield
    finally:
        layer.__dict__["_parameters"] = own


def _times_held(layer: nn.Module, module: nn.Module) -> int:
    return (module is layer) + sum(_times_held(layer, child) for child in module._modules.values() if child is not None)


def is_watched(module: nn.Module) -> bool:
    """Whether hooks, those for all modules included, or a forward of its own see or change what the module does."""
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return any(hooks) or "forward" in module.__dict__ or any(getattr(for_all, name) for name in HOOKS_FOR_ALL)
