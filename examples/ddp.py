"""ResidualDroppath in a plain DistributedDataParallel script: a residual network on scikit-learn's digits.

    torchrun --nproc-per-node 2 examples/ddp.py                    # two processes on a CPU (gloo)
    torchrun --nproc-per-node 2 examples/ddp.py --resume ddp.pt    # goes on after --save ddp.pt

Without torchrun it trains in one process. Needs scikit-learn. Seconds on two cores.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from residualdroppath import ResidualDropPath
from residualdroppath.integrations.ddp import exchange_what_learns
from sklearn.datasets import load_digits
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0.2, help="the largest drop rate; 0 is plain training")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", help="file to write at the end")
    parser.add_argument("--resume", help="file that --save has written")
    args = parser.parse_args()

    several = "RANK" in os.environ  # as torchrun sets it
    if several:
        distributed.init_process_group("gloo")
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if several else (0, 1)
    torch.manual_seed(args.seed)

    digits: Any = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    train = TensorDataset(images[:1000], labels[:1000])
    sampler = DistributedSampler(train, world, rank, seed=args.seed)
    loader = DataLoader(train, 50 // world, sampler=sampler)

    # The same order everywhere: the method, the optimizer, the wrapper, what is loaded.
    model = nn.Sequential(nn.Linear(64, 64), *(Block(64) for _ in range(8)), nn.Linear(64, 10))
    rdp = ResidualDropPath(model, args.rate, seed=args.seed)  # the same seed in every process: the same plans
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    wrapped = DistributedDataParallel(model, find_unused_parameters=args.rate > 0) if several else model
    if isinstance(wrapped, DistributedDataParallel) and args.rate > 0:
        exchange_what_learns(wrapped, rdp.frozen_parameters)  # sends no gradients of what is frozen or dropped
    start = 0
    if args.resume:
        state = torch.load(args.resume)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rdp.load_state_dict(state["rdp"])
        start = state["epochs"]

    for epoch in range(start, start + args.epochs):
        sampler.set_epoch(epoch)
        for inputs, targets in loader:
            nn.functional.cross_entropy(wrapped(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            rdp.step()

    if rank == 0:
        model.eval()
        with torch.no_grad():
            accuracy = (model(images[1000:]).argmax(1) == labels[1000:]).float().mean()
        print(f"{world} process(es), {rdp.iteration} updates, accuracy {100 * accuracy:.2f} %")
        if args.save:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rdp": rdp.state_dict()}
            torch.save({**state, "epochs": start + args.epochs}, args.save)
    if several:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
