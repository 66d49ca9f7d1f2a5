"""A small residual network on scikit-learn's digits, trained by Lightning with and without ResidualDroppath.

    python examples/lightning_images.py
    python examples/lightning_images.py --rate 0       # plain training
    python examples/lightning_images.py --devices 2    # two processes, on a CPU

Needs lightning (`pip install 'residualdroppath[lightning]'`) and scikit-learn. Half a minute on one core.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from residualdroppath.integrations.lightning import ResidualDropPathCallback
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Classifier(LightningModule):
    def __init__(self, depth: int = 6, width: int = 16, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        stem = nn.Conv2d(1, width, 3, padding=1)
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
        self.network = nn.Sequential(stem, *(Block(width) for _ in range(depth)), head)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.log("accuracy", (self.network(images).argmax(1) == labels).float().mean(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.hparams["lr"], momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.hparams["lr"], total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0.3, help="the largest drop rate; 0 is plain training")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--devices", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    seed_everything(args.seed)

    digits: Any = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    train, validation = random_split(data, [1000, len(data) - 1000], torch.Generator().manual_seed(args.seed))

    method = ResidualDropPathCallback(args.rate, seed=args.seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            devices=args.devices,
            strategy="ddp" if args.devices > 1 else "auto",
            max_epochs=args.epochs,
            callbacks=[method, ModelCheckpoint(folder, monitor="accuracy", mode="max", save_last=True)],
            logger=False,
            enable_progress_bar=False,
        )
        trainer.fit(Classifier(), DataLoader(train, 50, shuffle=True), DataLoader(validation, 200))
        assert method.rdp is not None
        print(method.rdp)
        print(f"{method.rdp.iteration} updates, accuracy {100 * trainer.callback_metrics['accuracy']:.2f} %")


if __name__ == "__main__":
    main()
