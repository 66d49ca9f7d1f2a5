"""Contracts 6 and 7 on two ranks: gradients equal those of one process on the joint batch.

DDP and FSDP2 may be built in any iteration; a rank may have fewer rows than the other.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from residualdroppath import ResidualDropPath

from .stepping import assert_close, gradients_of, sgd_step
from .tiny_blocks import LayerScale, Stack

ROWS = (4, 4)  # of each rank
UNEVEN_ROWS = (3, 5)
NUM_ITERATIONS = 4
OPTIONS: dict[str, dict[str, Any]] = {
    "parameters": {},
    "stop_gradient": {"freeze": "stop_gradient"},
    "sample": {"freeze": "stop_gradient", "granularity": "sample"},
    "uneven sample": {"freeze": "stop_gradient", "granularity": "sample"},
    "uneven late": {},
    "late fsdp": {},
    "fsdp stop_gradient": {"freeze": "stop_gradient"},
    "by a call": {},
    "by a call fsdp": {},
}
Gradients = dict[str, Tensor | None]


class Checked(LayerScale):
    """Its branch is found in the first training forward alone."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if torch.isfinite(out).all() else out.nan_to_num()


def rows_of(name: str) -> tuple[int, int]:
    return UNEVEN_ROWS if "uneven" in name else ROWS


def train(rank: int | None, name: str) -> list[Gradients]:
    """Gradients of each iteration, on the rows of one rank or (None) on all."""
    torch.manual_seed(0)
    blocks = itertools.cycle([LayerScale, Checked] if "by a call" in name else [LayerScale])
    model = Stack(lambda: next(blocks)()).double()  # no norm: rows do not see each other
    rows = rows_of(name)
    inputs = torch.randn(NUM_ITERATIONS, sum(rows), 5, dtype=torch.float64)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **OPTIONS[name])
    start = NUM_ITERATIONS - 1 if "late" in name else 0
    rdp.load_state_dict({**rdp.state_dict(), "iteration": start})  # a dropped_part iteration, where late
    wrapped: Any = model
    if rank is not None and "fsdp" in name:
        wrapped = fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    elif rank is not None:
        wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    own = slice(None) if rank is None else slice(0, rows[0]) if rank == 0 else slice(rows[0], None)
    share = 1.0 if rank is None else 2 * rows[rank] / sum(rows)  # DDP takes the mean over ranks, not over rows
    found = []
    for iteration in range(NUM_ITERATIONS):
        (wrapped(inputs[iteration, own]).square().mean() * share).backward()
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert len(rdp.branches) == len(model.blocks)
        found.append({name: _whole(gradient) for name, gradient in gradients_of(model).items()})
        sgd_step(model)
        rdp.step()
    rdp.remove()
    return found


def _whole(gradient: Tensor | None) -> Tensor | None:
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        torch.save({name: train(rank, name) for name in OPTIONS}, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Gradients]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.start_processes(worker, (str(folder),), nprocs=2, start_method="spawn")  # pyright: ignore
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_equal_those_of_a_single_process(name: str, of_ranks: list[dict[str, list[Gradients]]]) -> None:
    single = train(None, name)
    num_none = 0
    for iteration, expected in enumerate(single):
        for rank in range(2):
            actual = of_ranks[rank][name][iteration]
            for parameter, gradient in expected.items():
                found = actual[parameter]
                assert (found is None) == (gradient is None), (iteration, rank, parameter)
                if found is not None and gradient is not None:
                    assert_close(found, gradient, parameter)
                    assert found.abs().sum() > 0
                num_none += found is None
    assert num_none > 0
