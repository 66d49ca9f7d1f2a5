"""Weights, gradients and optimizer state split over processes by torch's `fully_shard`, and put together for files.

What is imported from `torch.distributed` takes seconds, so only where something is sharded.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.discovery.found import Discovery, NoResidualBranchError
from ..core.discovery.network_walk import discover
from ..core.residual_drop_path import ResidualDropPath
from ..errors import UserError, first_line

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def shard_for_training(
    model: nn.Module, ema: Any, rdp: ResidualDropPath | None, device: torch.device, processes: int
) -> None:
    """Split a network and its average, if there is one, alike; after all that acts on the network was made."""
    from torch.distributed.device_mesh import init_device_mesh

    try:
        found = discover(model) if rdp is None else rdp.discovery
    except NoResidualBranchError:
        found = Discovery()
    # A dropped block returns what it was given, by torch a view; that is safe unless it is overwritten, and then a copy
    # is returned. Nothing overwrites what the whole network returns.
    kind = re.escape(type(model).__name__) if found.outputs_may_be_overwritten else ".*"
    warnings.filterwarnings("ignore", rf"FSDP2-wrapped module \(FSDP{kind}\) returned a view", UserWarning)
    blocks = blocks_to_shard(model, found)
    mesh = init_device_mesh(device.type, (processes,))
    for each in (model,) if ema is None else (model, ema.module):
        shard(each, blocks, mesh, root_stays=found.needs_call)
    if ema is not None:
        ema.foreach = False  # split and other tensors, such as buffers, are not for one call


def blocks_to_shard(model: nn.Module, found: Discovery) -> list[str]:
    """Paths of the blocks that hold residual branches, but for those that share parameters with something outside.

    `fully_shard` would make two of a parameter that two of its groups share. None where the first training forward has
    yet to show the branches: it is followed on copies first, whose parameters have to be whole, and stay so.
    """
    if found.needs_call:
        return []
    uses = _uses(model)
    blocks = dict.fromkeys(branch.block for branch in found.branches if branch.block is not model)
    alone = {block for block in blocks if all(uses[id_] == count for id_, count in _uses(block).items())}
    return [path for path, module in model.named_modules() if module in alone]


def shard(model: nn.Module, blocks: Iterable[str], mesh: DeviceMesh, *, root_stays: bool) -> None:
    """Split the parameters of a network in place; those of each of some `blocks` are whole while it runs.

    Others are whole while the network runs, and up to the next backward pass if `root_stays`. Before an optimizer is
    made: the parameters are other objects afterwards.
    """
    from torch.distributed.fsdp import fully_shard

    # Inner ones first, as `fully_shard` has it.
    modules = [model.get_submodule(path) for path in sorted(blocks, key=lambda path: -path.count("."))]
    try:
        for module in modules:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh, reshard_after_forward=not root_stays)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"`shard` must be left out for this network: {first_line(error)}") from error


@contextmanager
def in_forward() -> Iterator[None]:
    """Around forwards in training. Raises `UserError` for a block that `fully_shard` cannot work with."""
    try:
        yield
    except RuntimeError as error:
        if "RegisterPostBackwardFunction" not in str(error):
            raise
        raise UserError(
            "`shard` must be left out for this network: a block overwrites what it is given (`x += ...`), which "
            "torch's `fully_shard` does not allow."
        ) from error


def is_sharded(model: nn.Module) -> bool:
    return hasattr(model, "set_requires_gradient_sync")  # a method of the class that `fully_shard` adds


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if _is_split(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def whole(state: dict[Any, Any], *, keep: bool = True) -> dict[Any, Any]:
    """A state with split tensors put together, on the CPU; not to `keep` them leaves None. In all processes."""

    def gathered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: gathered(each) for key, each in value.items()} if _holds_split(value) else value
        if not _is_split(value):
            return value
        together = value.full_tensor()
        return together.cpu() if keep else None

    return gathered(state)


def split_like(value: Any, like: Any) -> Any:
    """A whole tensor split as `like` is, if it has its shape; all else as it is."""
    if not _is_split(like) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    # Each process has all of it, so that nothing is sent.
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)  # pyright: ignore


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Whole weights into a network, split or not."""
    if is_sharded(model):
        own = model.state_dict()
        weights = {name: split_like(value, own.get(name)) for name, value in weights.items()}
    model.load_state_dict(weights)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """A whole state into an optimizer of parameters, split or not."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(map(_is_split, parameters)):
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        own = dict(zip(numbers, parameters, strict=True))
        entries = state["state"].items()
        split = {number: {name: split_like(value, own[number]) for name, value in of.items()} for number, of in entries}
        state = {**state, "state": split}
    optimizer.load_state_dict(state)


def _holds_split(state: dict[Any, Any]) -> bool:
    return any(_holds_split(value) if isinstance(value, dict) else _is_split(value) for value in state.values())


def _is_split(value: Any) -> bool:
    return hasattr(value, "full_tensor")


def _uses(module: nn.Module) -> Counter[int]:
    """How many names each parameter has."""
    return Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
