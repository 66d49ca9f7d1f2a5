"""Two processes that send the gradients of what learns alone: the weights of DistributedDataParallel's own exchange."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from residualdroppath import ResidualDropPath
from residualdroppath.integrations.ddp import exchange_what_learns
from residualdroppath.models.small_resnet import SmallResNet

OPTIONS: dict[str, dict[str, Any]] = {
    "parameters": {},
    "stop_gradient, union": {"freeze": "stop_gradient", "schedule": (2, 1), "trains": "union"},
    "sample": {"freeze": "stop_gradient", "granularity": "sample"},
}
ITERATIONS, PARTS, ROWS = 6, 2, 2


def trained(rank: int, options: dict[str, Any], *, hook: bool) -> dict[str, Tensor]:
    """Weights after a training with momentum and accumulated gradients."""
    torch.manual_seed(0)
    model = SmallResNet(8, 4, in_channels=1).double()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    ddp = DistributedDataParallel(model, find_unused_parameters=True, bucket_cap_mb=0.002)  # several buckets
    if hook:
        exchange_what_learns(ddp, rdp.frozen_parameters)
    images = torch.randn(2, ITERATIONS, PARTS, ROWS, 1, 8, 8, dtype=torch.float64)[rank]
    for of_iteration in images:
        with ddp.no_sync():
            ddp(of_iteration[0]).square().sum().backward()
        ddp(of_iteration[1]).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        rdp.step()
    return model.state_dict()


def train_both(rank: int, folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    weights = {name: [trained(rank, options, hook=hook) for hook in (False, True)] for name, options in OPTIONS.items()}
    torch.save(weights, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[dict[str, Tensor]]]]:
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    multiprocessing.start_processes(train_both, (folder, port), nprocs=2, start_method="spawn")  # pyright: ignore
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", OPTIONS)
def test_weights_are_those_of_its_own_exchange(name: str, weights: list[dict[str, list[dict[str, Tensor]]]]) -> None:
    own, ours = weights[0][name]
    for key, value in own.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-12, atol=1e-12, msg=key)
    for key, value in weights[1][name][1].items():  # running statistics are each process's own
        assert "running" in key or torch.equal(value, ours[key]), key
    assert any(not torch.equal(value, weights[1][name][1][key]) for key, value in ours.items() if "running" in key)


def test_what_cannot_follow_a_plan_is_refused(tmp_path: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Linear(2, 2))
        with pytest.raises(ValueError, match=r"find_unused_parameters=True .*, got find_unused_parameters=False"):
            exchange_what_learns(DistributedDataParallel(model), dict)
        with pytest.warns(UserWarning, match="detect unused parameters automatically"):
            still = DistributedDataParallel(model, find_unused_parameters=True, static_graph=True)
        with pytest.raises(ValueError, match="got find_unused_parameters=True, static_graph=True"):
            exchange_what_learns(still, dict)
    finally:
        distributed.destroy_process_group()
