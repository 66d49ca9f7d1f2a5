"""A branch times a factor for the price of a few parameters.

Scaling what a branch returns takes a pass over its activations, and another over their gradients. Where the branch
ends with a layer that is linear in its weight and bias, the factor goes there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.func import functional_call

from ..discovery.branch_subgraph import ResidualAdd
from ..forward_override import foreign_forward
from ..graph.node_kinds import down_to_last, is_layer_of_torch
from ..torch_internals import BatchNorm, Convolution, child_at, has_hooks, own_children, own_parameters

LINEAR_IN_PARAMETERS = (nn.Linear, Convolution, BatchNorm, nn.GroupNorm, nn.LayerNorm)
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
        if like.numel() <= MIN_ELEMENTS_TO_FOLD or like.device.type != "cpu":
            return None
        chain = down_to_last(child_at(self.block, self.target))
        last = chain[-1]
        able = (
            isinstance(last, LINEAR_IN_PARAMETERS)
            and is_layer_of_torch(last)
            and type(own_parameters(last).get("weight")) is nn.Parameter  # not of a subclass, sharded or quantised
            and own_parameters(last).keys() == {"weight", "bias"}
            and sum(p.numel() for p in last.parameters(recurse=False)) + MIN_ELEMENTS_TO_FOLD <= like.numel()
            and not any(is_watched(child) for child in chain)
            and sum(_times_held(last, child_at(self.block, name)) for name in self.called) == 1
            and all(child_at(self.block, name) is not last for name in self.read)
        )
        return last if able else None


def last_of(add: ResidualAdd) -> tuple[str, list[str], list[str]] | None:
    """What ends the branch, if a child of the block does: what `FoldTarget` needs besides the block."""
    if add.branch.op != "call_module":
        return None
    called = [str(node.target) for node in add.nodes if node.op == "call_module"]
    read = [str(node.target).rpartition(".")[0] for node in add.nodes if node.op == "get_attr"]
    return str(add.branch.target), called, read


class _Branch(nn.Module):
    """A branch as a module with its last layer as a child, for `functional_call`."""

    def __init__(self, layer: nn.Module, run: Callable[..., Tensor]):
        super().__init__()
        self.layer = layer
        self.run = run

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(*inputs)


def run_scaled(layer: nn.Module, factor: float, run: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
    """`run(*inputs)` while `layer` computes `factor` times its output; gradients reach its own parameters."""
    scaled = {f"layer.{name}": parameter * factor for name, parameter in layer.named_parameters(recurse=False)}
    return functional_call(_Branch(layer, run), scaled, inputs, tie_weights=False)


def _times_held(layer: nn.Module, module: nn.Module) -> int:
    children = (child for child in own_children(module).values() if child is not None)
    return (module is layer) + sum(_times_held(layer, child) for child in children)


def is_watched(module: nn.Module) -> bool:
    """Whether hooks, or a forward that others have set on the instance, see or change what the module does."""
    return has_hooks(module) or foreign_forward(module) is not None
