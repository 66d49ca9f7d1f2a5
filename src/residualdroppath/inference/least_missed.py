"""Which branches of a network are missed least on some images, one after another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from ..analysis.deletion import without
from ..core.discovery.found import NoResidualBranchError
from ..core.residual_drop_path import ResidualDropPath
from ..data.images import Split
from ..errors import UserError
from .network import TrainedNetwork, example_images

MOST_IMAGES = 1000


@torch.no_grad()
def least_missed(
    network: TrainedNetwork,
    split: Split,
    count: int,
    batch_size: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[str, float]]:
    """`count` branches, each the one whose deletion raises the loss least after those before, and the loss then."""
    try:
        rdp = ResidualDropPath(network.model, 0.0, example=example_images(network.about, device=network.device))
    except NoResidualBranchError as error:
        raise UserError(str(error)) from error
    network.model.eval()
    names = [branch.name for branch in rdp.branches]
    if not 1 <= count < len(names):
        rdp.remove()
        raise UserError(f"`prune_branches` must be in [1, {len(names) - 1}] of {len(names)} branches, got {count}.")
    some = split.subset(torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:MOST_IMAGES])
    batches = list(torch.arange(len(some)).split(batch_size))
    gone: list[int] = []
    losses: list[float] = []
    done, total = 0, sum(len(names) - number for number in range(count))
    try:
        for _ in range(count):
            found: dict[int, float] = {}
            for index in (index for index in range(len(names)) if index not in gone):
                loss = 0.0
                with without(rdp, [*gone, index]):
                    for images, labels in some.batches(batches):
                        logits = network.logits(images).cpu()
                        loss += float(F.cross_entropy(logits, labels.cpu(), reduction="sum"))
                found[index] = loss / len(some)
                done += 1
                on_progress(done, total)
            best = min(found, key=found.__getitem__)
            gone.append(best)
            losses.append(found[best])
    finally:
        rdp.remove()
    return [(names[index], loss) for index, loss in zip(gone, losses, strict=True)]
