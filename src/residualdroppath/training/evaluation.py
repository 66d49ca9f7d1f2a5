"""Loss and accuracies of a network on the images of a part."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.images import Split
from .processes import Processes
from .sharding import is_sharded

TOP = 5


class Scores(NamedTuple):
    """Mean cross-entropy, accuracy, and that of the right class among the five likeliest, of more than five."""

    loss: float
    accuracy: float
    top5_accuracy: float | None

    def named(self, part: str) -> dict[str, float]:
        """By names that begin with the part; without what there is not."""
        return {f"{part}_{name}": value for name, value in self._asdict().items() if value is not None}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    prepare: Callable[[Tensor], Tensor],
    processes: Processes,
    *,
    num_classes: int,
    batch_size: int,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Scores:
    """Of the network as it will be deployed, each image used exactly once."""
    model.eval()
    processes.share_buffers(model)
    totals = [0.0, 0.0, 0.0]
    indices = list(torch.arange(len(split)).split(batch_size))
    own = indices[processes.rank :: processes.count]
    # Each forward of a sharded network gathers weights from all processes: they make the same number of them.
    extra = is_sharded(model) and len(own) * processes.count < len(indices)
    for number, (images, labels) in enumerate(split.batches(own + indices[:1] * extra)):
        labels = labels.to(processes.device)
        with autocast():
            logits = model(prepare(images.to(processes.device)))
        if number == len(own):
            break
        totals[0] += float(F.cross_entropy(logits.float(), labels, reduction="sum"))
        totals[1] += int((logits.argmax(1) == labels).sum())
        totals[2] += int((logits.topk(min(TOP, num_classes), 1).indices == labels[:, None]).sum())
    sums = torch.tensor(totals, dtype=torch.float64, device=processes.device)
    loss, correct, in_top = processes.sum(sums).tolist()
    return Scores(loss / len(split), correct / len(split), in_top / len(split) if num_classes > TOP else None)
