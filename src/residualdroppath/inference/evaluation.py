"""How often a network is right: in all, among its first five answers, by class, and what it takes for what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.images import Split
from .network import TrainedNetwork

FIRST = 5  # answers of which one has to be right


def evaluate(
    network: TrainedNetwork,
    split: Split,
    batch_size: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Figures over all images of `split`, each used once, as plain values; `confusion[true][answer]` counts images."""
    classes = network.about.classes
    count = len(classes)
    confusion = torch.zeros(count, count, dtype=torch.int64)
    loss, among_first = 0.0, 0
    for logits, labels in _answers(network, split, batch_size, on_progress):
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        if count > FIRST:
            among_first += int((logits.topk(FIRST, 1).indices == labels[:, None]).sum())
        confusion += torch.bincount(labels * count + logits.argmax(1), minlength=count**2).view(count, count)
    total = len(split)
    right = confusion.diagonal()
    of_class, answered = confusion.sum(1), confusion.sum(0)
    return {
        "images": total,
        "loss": loss / total,
        "top1": int(right.sum()) / total,
        **({"top5": among_first / total} if count > FIRST else {}),
        "classes": [
            {
                "class": name,
                "images": int(of_class[place]),
                "accuracy": _share(right[place], of_class[place]),
                "answers": int(answered[place]),
                "right_of_answers": _share(right[place], answered[place]),
            }
            for place, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }


def _answers(
    network: TrainedNetwork, split: Split, batch_size: int, on_progress: Callable[[int, int], None]
) -> Iterator[tuple[Tensor, Tensor]]:
    done = 0
    for images, labels in split.batches(list(torch.arange(len(split)).split(batch_size))):
        yield network.logits(images).cpu(), labels.cpu()
        done += len(labels)
        on_progress(done, len(split))


def _share(part: Tensor, whole: Tensor) -> float | None:
    """None of nothing."""
    return int(part) / int(whole) if int(whole) else None
