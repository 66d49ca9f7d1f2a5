"""Forward and backward of a batch, whole or in parts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .processes import Processes
from .sharding import in_forward


def accumulate_gradients(
    wrapped: nn.Module,
    images: Tensor,
    labels: Tensor,
    processes: Processes,
    scaler: torch.amp.GradScaler,
    *,
    parts: int,
    batch_size: int,
    label_smoothing: float,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> tuple[Tensor, Tensor]:
    """Gradients of this process's rows, in `parts`; those of all processes are exchanged with the last of these.

    `labels` are classes int64[rows] or shares float[rows, classes]. Returns the loss, weighted so that its mean over
    processes is that of the batch of `batch_size`, and the number of right answers, both still on the device.
    """
    losses, correct = [], []
    of_each = list(zip(*(each.tensor_split(parts) for each in (images, labels)), strict=True))
    for number, (some_images, some_labels) in enumerate(of_each, start=1):
        with processes.without_exchange(wrapped) if number < len(of_each) else nullcontext():
            with autocast(), in_forward():
                logits = wrapped(some_images)
                loss = F.cross_entropy(logits, some_labels, label_smoothing=label_smoothing)
            if (weight := len(some_images) * processes.count / batch_size) != 1:
                loss = loss * weight
            scaler.scale(loss).backward()
        losses.append(loss.detach())
        likeliest = some_labels if some_labels.dim() == 1 else some_labels.argmax(1)  # of mixed images
        correct.append((logits.detach().argmax(1) == likeliest).sum())
    return sum(losses[1:], losses[0]), sum(correct[1:], correct[0])
