"""What an iteration costs relative to a plain one, over many plans, taken in turn in one process.

    python benchmarks/iteration_cost.py --model resnet50d --image-size 32 --batch-size 128 \
        --rates 0.1 0.5 --plans 24 --channels-last --out results/iteration_cost_resnet50d_cpu.json

Every plan is run as a `drop_path` and as a `dropped_part` iteration, each beside a plain one; the
optimizer is SGD with momentum and weight decay. Times mean little on a shared machine: read the ratios.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from residualdroppath import ResidualDropPath
from residualdroppath.experiments.cost import Stopwatch
from residualdroppath.models.create import create_model
from residualdroppath.training.environment import environment
from residualdroppath.training.run_folder import write_json
from residualdroppath.training.trainer import pick_device

Freeze = Literal["parameters", "stop_gradient"]


@dataclass
class Benchmark:
    model: str = "resnet50d"
    image_size: int = 32
    batch_size: int = 128
    rates: tuple[float, ...] = (0.1, 0.5)
    rate_over_depth: Literal["linear", "uniform"] = "uniform"
    plans: int = 24
    """Seeded plans, each run as both kinds of iteration."""
    warmup: int = 2
    """Cycles before the first that counts."""
    device: str = "auto"
    amp: bool = False
    """bf16 autocast."""
    channels_last: bool = False
    seed: int = 0
    out: Path | None = None
    """JSON record to write."""


class Contender:
    """A network with its optimizer, trained by one method on one batch."""

    def __init__(self, settings: Benchmark, device: torch.device, rate: float, freeze: Freeze | None):
        torch.manual_seed(settings.seed)
        size = settings.image_size
        model = create_model(settings.model, in_channels=3, num_classes=10, image_size=size).to(device)
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model: nn.Module = model.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        self.rdp = None
        if freeze is not None:
            self.rdp = ResidualDropPath(
                self.model, rate, rate_over_depth=settings.rate_over_depth, freeze=freeze, seed=settings.seed
            )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
        self.images = torch.randn(settings.batch_size, 3, size, size, device=device).contiguous(memory_format=layout)
        self.labels = torch.randint(10, (settings.batch_size,), device=device)
        self.amp = settings.amp

    def iteration(self) -> None:
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.amp):
            loss = F.cross_entropy(self.model(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.rdp is not None:
            self.rdp.step()


def measure(settings: Benchmark, device: torch.device, rate: float) -> dict[str, Any]:
    """Ratios to plain by kind of iteration, per iteration and per cycle, with each plan's own."""
    stopwatch = Stopwatch(device)
    plain = Contender(settings, device, rate, None)
    contenders = {freeze: Contender(settings, device, rate, freeze) for freeze in ("parameters", "stop_gradient")}
    times: dict[str, dict[str, list[float]]] = {
        name: {"drop_path": [], "dropped_part": []} for name in ("plain", *contenders)
    }
    for cycle in track(range(settings.warmup + settings.plans), description=f"rate {rate}", transient=True):
        for kind in ("drop_path", "dropped_part"):
            taken = {"plain": stopwatch(plain.iteration)}
            for name, contender in contenders.items():
                assert contender.rdp is not None and contender.rdp.kind == kind
                taken[name] = stopwatch(contender.iteration)
            if cycle >= settings.warmup:
                for name, seconds in taken.items():
                    times[name][kind].append(seconds)
    return {name: _ratios(times[name], times["plain"]) for name in contenders}


def _ratios(times: dict[str, list[float]], plain: dict[str, list[float]]) -> dict[str, Any]:
    by_kind = {kind: sum(times[kind]) / sum(plain[kind]) for kind in times}
    own_cycles, plain_cycles = (zip(*kinds.values(), strict=True) for kinds in (times, plain))
    cycles = [sum(own) / sum(other) for own, other in zip(own_cycles, plain_cycles, strict=True)]
    total = sum(map(sum, times.values())) / sum(map(sum, plain.values()))
    error = statistics.stdev(cycles) / len(cycles) ** 0.5 if len(cycles) > 1 else None
    return {
        **by_kind,
        "per_iteration": total,
        "per_cycle": 2 * total,
        "standard_error": error,
        "per_iteration_of_each_plan": [round(ratio, 4) for ratio in cycles],
    }


def main() -> None:
    settings = tyro.cli(Benchmark, description=__doc__)
    device = pick_device(settings.device)
    ratios = {str(rate): measure(settings, device, rate) for rate in settings.rates}
    table = Table(title=f"{settings.model}, {settings.image_size}x{settings.image_size}, batch {settings.batch_size}")
    for name in ("rate", "freeze", "drop_path", "dropped_part", "per iteration", "per cycle"):
        table.add_column(name)
    for rate, by_freeze in ratios.items():
        for freeze, own in by_freeze.items():
            numbers = (own[name] for name in ("drop_path", "dropped_part", "per_iteration", "per_cycle"))
            table.add_row(rate, freeze, *(f"{number:.3f}" for number in numbers))
    Console().print(table)
    if settings.out is not None:
        config = {name: str(value) if isinstance(value, Path) else value for name, value in vars(settings).items()}
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(settings.out, {"config": config, "environment": environment(device), "relative_to_plain": ratios})


if __name__ == "__main__":
    main()
