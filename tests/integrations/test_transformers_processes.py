"""The callback on two processes: weights equal those of one process on the joint batch, and resuming is exact."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from residualdroppath.integrations.transformers import ResidualDropPathCallback

from .trainers import ROWS, assert_same, bert, trainer_of, weights

# Else a loss that takes no notice of the number of items is multiplied by the number of processes.
DDP: dict[str, Any] = {"ddp_backend": "gloo", "average_tokens_across_devices": False}
SAVING: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}


def uniform() -> ResidualDropPathCallback:
    return ResidualDropPathCallback(0.5, rate_over_depth="uniform")


def double() -> Any:
    return bert(dropout=0.0).double()


def train(folder: Path, resume: bool = False, **changes: Any) -> dict[str, Tensor]:
    trainer = trainer_of(folder, uniform(), model=double(), **changes)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-3") if resume else None)
    return weights(trainer.model)  # pyright: ignore[reportArgumentType]


def train_checkpointed(folder: Path) -> dict[str, Tensor]:
    """DDP is told by `add_to`; without it the Trainer is refused when it is made."""
    with pytest.raises(ValueError, match="ddp_find_unused_parameters=True"):
        trainer_of(folder, uniform(), model=double(), activation_checkpointing=True, **DDP)
    trainer = trainer_of(folder, model=double(), activation_checkpointing=True, **DDP)
    uniform().add_to(trainer)
    trainer.train()
    return weights(trainer.model)  # pyright: ignore[reportArgumentType]


def worker(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    ends = {
        "whole": train(Path(folder), **SAVING, **DDP),
        "resumed": train(Path(folder), resume=True, **SAVING, **DDP),
        "checkpointed": train_checkpointed(Path(folder)),
    }
    torch.save(ends, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.full
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    multiprocessing.start_processes(worker, (str(tmp_path), free_port()), nprocs=2, start_method="spawn")  # pyright: ignore
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    expected = train(tmp_path, per_device_train_batch_size=2 * ROWS)
    assert_same(ranks[0]["whole"], ranks[1]["whole"])
    assert_same(ranks[0]["whole"], ranks[0]["resumed"])
    for name in ("whole", "checkpointed"):
        for key, value in ranks[0][name].items():
            torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-9, msg=f"{name}: {key}")
