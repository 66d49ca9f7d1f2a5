"""FSDP2 by blocks, of a network whose branches a call has to show: found on copies, so before blocks are split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from residualdroppath import ResidualDropPath

from .test_distributed import Checked
from .tiny_blocks import LayerScale

BATCH = torch.ones(4, 6)


@pytest.fixture
def alone_in_a_group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def network() -> nn.Sequential:
    return nn.Sequential(LayerScale(), Checked(), LayerScale())


def shard_by_blocks(model: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("cpu", (1,))
    for block in model:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def loss(model: nn.Module) -> Tensor:
    return model(BATCH).square().mean()


def test_a_call_on_split_blocks_is_refused(alone_in_a_group: None) -> None:
    model = network()
    ResidualDropPath(model, 0.5)
    with pytest.raises(ValueError, match="are split over processes.*with `example=` .* before `fully_shard`"):
        loss(shard_by_blocks(model))


def test_an_example_after_sharding_is_refused(alone_in_a_group: None) -> None:
    with pytest.raises(ValueError, match="are split over processes.*with `example=` .* before `fully_shard`"):
        ResidualDropPath(shard_by_blocks(network()), 0.5, example=BATCH)


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view:UserWarning")
def test_an_example_before_sharding_is_followed(alone_in_a_group: None) -> None:
    model = network()
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", example=BATCH)
    shard_by_blocks(model)
    for _ in range(2):
        loss(model).backward()
        rdp.step()
    assert len(rdp.branches) == 3
