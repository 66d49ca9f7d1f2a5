"""The processes of a training: one, or as many as `accelerate launch` or `torchrun` has started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from ..core.residual_drop_path import ResidualDropPath
from ..core.torch_internals import BatchNorm
from ..errors import UserError
from ..integrations.ddp import Frozen, exchange_what_learns
from .launcher import require_choices_of_recipe, require_no_sharding
from .runtime import pick_device
from .sharding import is_sharded, shard_for_training

T = TypeVar("T")
ALL_WEIGHTS_EVERYWHERE = ("MULTI_CPU", "MULTI_GPU")  # the kinds of launch in which each process holds all weights


class Processes:
    """What this process computes on, and what it exchanges with the others. Alone, all exchanges do nothing.

    The first process is the main one: it alone reads and writes the folder of the run.
    """

    def __init__(self, device: str):
        require_no_sharding(os.environ)
        self.device = pick_device(device)
        self.accelerator: Any = None
        self.rank, self.count = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            self.accelerator = _accelerator(device, self.device)
            self.device = self.accelerator.device
            self.rank, self.count = self.accelerator.process_index, self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module, frozen: Frozen | None) -> nn.Module:
        """The network with gradients averaged over processes, but for those of what is `frozen()` in an iteration.

        A sharded one averages them by itself.
        """
        if self.accelerator is None or is_sharded(model):
            return model
        self.accelerator.ddp_handler.find_unused_parameters = frozen is not None
        wrapped = self.accelerator.prepare_model(model, device_placement=False)
        if frozen is not None:
            exchange_what_learns(wrapped, frozen)
        return wrapped

    def split(self, model: nn.Module, ema: Any, rdp: ResidualDropPath | None) -> None:
        """Each process keeps its part of a network and of its average. Before an optimizer is made."""
        if self.count > 1:
            shard_for_training(model, ema, rdp, self.device, self.count)

    def with_synchronised_norms(self, model: nn.Module) -> nn.Module:
        """The network with batch norms over the rows of all processes; before anything holds its modules."""
        if not any(isinstance(module, BatchNorm) for module in model.modules()):
            raise UserError("`sync_batch_norm` is for networks with batch norm, this one has none; leave it out.")
        if self.count == 1:  # the same
            return model
        if self.device.type != "cuda":
            raise UserError(
                f"`sync_batch_norm` needs CUDA devices, torch's SyncBatchNorm refuses others; got {self.count} "
                f"processes on {self.device.type}. Leave it out, or launch one process."
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def without_exchange(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """Around backward passes whose gradients are added to by later ones before they are averaged."""
        return nullcontext() if self.accelerator is None else self.accelerator.no_sync(wrapped)

    def sum(self, values: Tensor) -> Tensor:
        return values if self.accelerator is None else self.accelerator.reduce(values, "sum")

    def largest(self, *values: float) -> list[float]:
        """Of each value the largest among processes."""
        if self.accelerator is None:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(together, distributed.ReduceOp.MAX)
        return together.tolist()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order, a value of plain data and tensors."""
        if self.accelerator is None:
            return [value]
        gathered: list[Any] = [None] * self.count
        distributed.all_gather_object(gathered, value)
        return gathered

    def own_of(self, gathered: Sequence[Tensor]) -> Tensor:
        """This process's of what `gather` returned; of another number of processes, an equal share of the sum."""
        return gathered[self.rank] if len(gathered) == self.count else torch.stack(list(gathered)).sum(0) / self.count

    def share_buffers(self, model: nn.Module) -> None:
        """Buffers, such as running statistics, become those of the main process."""
        if self.accelerator is not None:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def from_main(self, work: Callable[[], T]) -> T:
        """What `work` returns in the main process, which alone does it. All end if it fails there."""
        if self.accelerator is None:
            return work()
        shared: list[Any] = [None, None]
        try:
            if self.is_main:
                shared[1] = work()
        except BaseException:
            shared[0] = "failed"
            raise
        finally:
            distributed.broadcast_object_list(shared, 0)
        if shared[0]:
            raise SystemExit(1)  # the main process has said why
        return shared[1]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The others wait until the main process is through: what it fetches is there for them."""
        if self.accelerator is None:
            yield
            return
        with self.accelerator.main_process_first():
            yield


def _accelerator(name: str, device: torch.device) -> Any:
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    if device.index is not None:
        raise UserError(f"`device` must be auto, cpu or cuda where several processes are launched, got {name!r}.")
    require_choices_of_recipe(os.environ)
    # The precision is the recipe's (`amp`), applied by the trainer: an Accelerator's holds for the whole process.
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[DistributedDataParallelKwargs()]
    )
    kind = accelerator.distributed_type.value
    if kind not in ALL_WEIGHTS_EVERYWHERE:
        raise UserError(
            f"Launched processes must be of the kinds {' or '.join(ALL_WEIGHTS_EVERYWHERE)} (DDP), got {kind}; "
            "launch without FSDP, DeepSpeed and other sharding; `shard` splits weights."
        )
    return accelerator
