r"""Two processes (gloo, on CPUs): the method against plain DDP, time of an iteration and bytes of gradients sent; and
against itself with DDP's own exchange, which sends all, by the same plans.

.venv/bin/python benchmarks/two_processes.py --out results/training/two_processes.json

The trainings live in the same two processes and take turns, a cycle each; the order is turned around every time.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from builds import write
from torch import distributed, multiprocessing

from residualdroppath.data.image_sources import InMemory
from residualdroppath.data.images import ImageData, Split
from residualdroppath.integrations import ddp
from residualdroppath.training import processes as processes_module
from residualdroppath.training.processes import Processes
from residualdroppath.training.recipe import TrainConfig
from residualdroppath.training.trainer import Trainer

PLAIN, OURS, OWN_EXCHANGE = "plain", "residual_drop_path", "residual_drop_path, DDP's own exchange"
TARGETS = {PLAIN: 0.75, OWN_EXCHANGE: 0.8}
KINDS = ("drop_path", "dropped_part")
WARM_UP = 2  # cycles


def some_images(count: int, size: int) -> ImageData:
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    split = Split(InMemory(images), torch.arange(count) % 10)
    return ImageData("noise", split, split, split, num_classes=10, channels=3, image_size=size, mirrored=True)


def serve(rank: int, port: int, arguments: argparse.Namespace, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, processes, sent = some_images(arguments.batch_size, arguments.image_size), Processes("cpu"), [0]

    def counted(values: torch.Tensor, **options: Any) -> Any:
        sent[0] += values.numel() * values.element_size()
        return distributed.all_reduce(values, **options)

    ddp.distributed = SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
        all_reduce=counted, get_world_size=distributed.get_world_size
    )
    trainers = {}
    for method in (PLAIN, OURS, OWN_EXCHANGE):
        config = TrainConfig(
            method=PLAIN if method == PLAIN else OURS, model=arguments.model, batch_size=arguments.batch_size,
            drop_path_rate=arguments.rate,
            rate_over_depth="uniform", channels_last=True, device="cpu", threads=1, crop_padding=0, mirror=False,
        )  # fmt: skip
        with mock.patch.object(processes_module, "exchange_what_learns") if method == OWN_EXCHANGE else nullcontext():
            trainers[method] = Trainer(config, data, processes)
        trainers[method].model.train()
    batch = next(trainers[PLAIN].batches(1))
    rows: list[dict[str, Any]] = []
    for cycle in range(arguments.cycles + WARM_UP):
        for method in list(trainers)[:: 1 if cycle % 2 else -1]:
            for _ in range(2):
                trainer = trainers[method]
                kind, sent[0] = trainer.kind, 0
                frozen = sum(each.numel() for each in trainer.rdp.frozen_parameters().values()) if trainer.rdp else 0
                processes.wait()
                start = time.perf_counter()
                trainer.train_iteration(*batch)
                processes.wait()
                seconds = time.perf_counter() - start
                everything = sum(each.numel() for each in trainer.model.parameters())
                if cycle >= WARM_UP:
                    rows.append(
                        {
                            "cycle": cycle,
                            "method": method,
                            "kind": kind,
                            "seconds": seconds,
                            "bytes": sent[0] if method == OURS else 4 * everything,  # DDP's own exchange sends all
                            "learning": 4 * (everything - frozen),
                        }
                    )
    if rank == 0:
        torch.save(rows, Path(folder) / "rows.pt")
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50d")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.1, help="uniform over depth")
    parser.add_argument("--cycles", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.start_processes(serve, (port, arguments, folder), nprocs=2, start_method="spawn")  # pyright: ignore
        rows = torch.load(Path(folder) / "rows.pt")
    of_cycle: dict[str, list[float]] = {method: [] for method in (PLAIN, OURS, OWN_EXCHANGE)}
    for cycle in sorted({row["cycle"] for row in rows}):
        for method, seconds in of_cycle.items():
            seconds.append(sum(row["seconds"] for row in rows if row["cycle"] == cycle and row["method"] == method) / 2)
    over = {}
    for other, target in TARGETS.items():
        ratios = [b / a for a, b in zip(of_cycle[other], of_cycle[OURS], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        over[other] = {"median": median, "quartiles": [low, high], "target": target}
    kinds = {}
    for method, of_method in ((PLAIN, ("plain",)), (OURS, KINDS), (OWN_EXCHANGE, KINDS)):
        for kind in of_method:
            own = [row for row in rows if row["kind"] == kind and row["method"] == method]
            kinds[kind if method != OWN_EXCHANGE else f"{kind}, DDP's own exchange"] = {
                "seconds": statistics.median(row["seconds"] for row in own),
                "mean_bytes": statistics.mean(row["bytes"] for row in own),
                "mean_bytes_of_what_learns": statistics.mean(row["learning"] for row in own),
                "n": len(own),
            }
    options = {name: value for name, value in vars(arguments).items() if name != "out"}
    record = {
        "config": options,
        "time_per_iteration_over_plain": over[PLAIN],
        "time_per_iteration_over_own_exchange": over[OWN_EXCHANGE],
        "kinds": kinds,
    }
    write(record, arguments.out)


if __name__ == "__main__":
    main()
