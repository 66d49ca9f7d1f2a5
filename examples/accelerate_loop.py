"""A loop of one's own with accelerate, under ResidualDroppath: accumulation, checkpoints, one or several processes.

    python examples/accelerate_loop.py
    torchrun --nproc-per-node 2 examples/accelerate_loop.py
    python examples/accelerate_loop.py --resume

A residual MLP on scikit-learn's digits; a run takes well under a minute on a CPU. Needs
`pip install residualdroppath accelerate scikit-learn`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from residualdroppath import ResidualDropPath
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NUM_TRAINING = 1400  # of 1,797 images


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.branch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def network(width: int = 64, depth: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), *(Block(width) for _ in range(depth)), nn.Linear(width, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drop-path-rate", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/accelerate_loop"))
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    options = parser.parse_args()

    accelerator = Accelerator(
        gradient_accumulation_steps=2,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    torch.manual_seed(options.seed)
    bunch: Any = load_digits()
    images, labels = torch.tensor(bunch.data, dtype=torch.float32) / 16, torch.tensor(bunch.target)
    training = TensorDataset(images[:NUM_TRAINING], labels[:NUM_TRAINING])
    loader = DataLoader(training, batch_size=32, shuffle=True)

    model = network()
    rdp = ResidualDropPath(model, options.drop_path_rate, seed=options.seed)  # first, then the optimizer
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    accelerator.register_for_checkpointing(rdp)

    epochs_done = 0
    if options.resume:
        accelerator.load_state(str(options.out))
        epochs_done = int((options.out / "epochs.txt").read_text())
    for epoch in range(epochs_done, options.epochs):
        loader.set_epoch(epoch)
        model.train()
        for batch, targets in loader:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.cross_entropy(model(batch), targets))
                optimizer.step()
                optimizer.zero_grad()
                if accelerator.sync_gradients:  # once per update, not per micro-batch
                    rdp.step()
        accelerator.save_state(str(options.out))
        if accelerator.is_main_process:
            (options.out / "epochs.txt").write_text(str(epoch + 1))

    if accelerator.is_main_process:
        plain = accelerator.unwrap_model(model).eval()
        with torch.no_grad():
            right = (plain(images[NUM_TRAINING:].to(accelerator.device)).argmax(1).cpu() == labels[NUM_TRAINING:]).sum()
        print(f"{rdp.iteration} iterations, accuracy {int(right) / (len(labels) - NUM_TRAINING):.3f}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
