"""What an iteration computes and keeps, counted on a small batch: the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from ...analysis.flops import flop_counter
from ...analysis.saved_bytes import saved_bytes
from ...core.planning.plan import Plan
from ..progress import OnProgress
from .config import BenchConfig
from .contenders import make_contender

SMALL_BATCH = 8


@dataclass(frozen=True)
class Counts:
    """Relative to a plain iteration: FLOPs, and bytes saved for backward (mean and worst of the plans), by kind."""

    flops: float
    flops_by_kind: dict[str, float]
    saved: dict[str, float]
    saved_worst: dict[str, float]


def count(name: str, config: BenchConfig, plans: list[Plan | None], on_progress: OnProgress) -> Counts:
    """Count the plans that were timed, forward and backward, on the CPU."""
    config = config.model_copy(update={"compile": False, "dtype": "float32", "channels_last": False, "fused": False})
    device = torch.device("cpu")
    plain = make_contender("plain", config, device, SMALL_BATCH)
    flops_of_plain, bytes_of_plain = _one(plain)
    if name == "plain":
        return Counts(1.0, {"every": 1.0}, {"every": 1.0}, {"every": 1.0})
    contender = make_contender(name, config, device, SMALL_BATCH)
    flops: dict[str, list[float]] = {}
    saved: dict[str, list[float]] = {}
    rdp = contender.rdp
    assert rdp is not None
    iterations = [plan.iteration for plan in plans if plan is not None]
    while rdp.iteration < iterations[0]:
        rdp.step()
    for done in range(len(iterations)):
        on_progress(f"counting {name}", done, len(iterations))
        own_flops, own_bytes = _one(contender)
        flops.setdefault(rdp.kind, []).append(own_flops / flops_of_plain)
        saved.setdefault(rdp.kind, []).append(own_bytes / bytes_of_plain)
        rdp.step()
    on_progress(f"counting {name}", len(iterations), len(iterations))
    return Counts(
        flops=fmean(fmean(values) for values in flops.values()),
        flops_by_kind={kind: fmean(values) for kind, values in flops.items()},
        saved={kind: fmean(values) for kind, values in saved.items()},
        saved_worst={kind: max(values) for kind, values in saved.items()},
    )


def _one(contender: Any) -> tuple[int, int]:
    """FLOPs of forward and backward, and bytes saved in between."""
    contender.optimizer.zero_grad()
    with flop_counter() as counter:
        with saved_bytes(contender.model) as saved:
            loss = contender.loss()
        loss.backward()
    return counter.get_total_flops(), saved.total
