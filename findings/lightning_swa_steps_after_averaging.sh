#!/usr/bin/env bash
# lightning 2.6.6: `StochasticWeightAveraging` of a network with batch norm does not end with the averaged weights.
#
# Input: plain SGD on a network with one batch norm, and on the same with layer norm.
# Expected: after the fit the network has the average; the source of the callback speaks of one more pass, which
#   measures batch norms, without backward or optimizer step.
# Seen: at the end of that pass the optimizer steps once more, with the gradient that the last real update has left
#   (it is set to None at the first micro-batch of an update, which this pass skips), so the weights leave the average
#   by a step of the learning rate, after the norms were measured. Without batch norm there is no such pass.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5 lightning==2.6.6
cd "$dir"
"$dir/venv/bin/python" -W ignore - <<'PYTHON'
import logging
import sys

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Task(LightningModule):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), norm, nn.Linear(4, 2))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.net(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Average(Callback):
    """The weights when an epoch begins: in the last, extra pass the average, put in by the callback before."""

    def on_train_epoch_start(self, trainer: Trainer, module: Task) -> None:
        self.epoch, self.weights = trainer.current_epoch, [weight.detach().clone() for weight in module.parameters()]


loader = torch.utils.data.DataLoader(torch.randn(12, 3), 4)
task, average = Task(nn.BatchNorm1d(4)), Average()
Trainer(
    accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, callbacks=[StochasticWeightAveraging(0.1, swa_epoch_start=1), average],
).fit(task, loader)
moved = max(float((a - b).detach().abs().max()) for a, b in zip(average.weights, task.parameters()))
by_gradient = max(
    float((a - 0.1 * b.grad - b).detach().abs().max()) for a, b in zip(average.weights, task.parameters())
)
print(f"extra pass is epoch {average.epoch}; weights minus average: {moved:.4f}")
print(f"weights minus (average - lr * gradient left over): {by_gradient:.1e}")
sys.exit(0 if average.epoch == 3 and moved > 1e-4 and by_gradient < 1e-6 else "This has changed.")
PYTHON
