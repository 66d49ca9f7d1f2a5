"""Contract 7 on two ranks: gradients under DDP equal those of one process on the joint batch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from residualdroppath import ResidualDropPath

from .stepping import assert_close, gradients_of, sgd_step
from .tiny_blocks import LayerScale, Stack

ROWS = 4  # per rank
NUM_ITERATIONS = 4
OPTIONS: dict[str, dict[str, Any]] = {
    "parameters": {},
    "stop_gradient": {"freeze": "stop_gradient"},
    "sample": {"freeze": "stop_gradient", "granularity": "sample"},
}
Gradients = dict[str, Tensor | None]


def train(rank: int | None, options: dict[str, Any]) -> list[Gradients]:
    """Gradients of each iteration, on the rows of one rank or (None) on all."""
    torch.manual_seed(0)
    model = Stack(LayerScale).double()  # no norm: rows do not see each other
    inputs = torch.randn(NUM_ITERATIONS, 2 * ROWS, 5, dtype=torch.float64)
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **options)
    wrapped = model if rank is None else DistributedDataParallel(model, find_unused_parameters=True)
    rows = slice(None) if rank is None else slice(rank * ROWS, (rank + 1) * ROWS)
    found = []
    for iteration in range(NUM_ITERATIONS):
        wrapped(inputs[iteration, rows]).square().mean().backward()
        found.append(gradients_of(model))
        sgd_step(model)
        rdp.step()
    rdp.remove()
    return found


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        torch.save({name: train(rank, options) for name, options in OPTIONS.items()}, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Gradients]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.start_processes(worker, (str(folder),), nprocs=2, start_method="spawn")  # pyright: ignore
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_equal_those_of_a_single_process(name: str, of_ranks: list[dict[str, list[Gradients]]]) -> None:
    single = train(None, OPTIONS[name])
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
