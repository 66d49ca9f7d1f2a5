r"""What an iteration costs under Composer's stochastic depth, relative to a plain one in the same process.

Composer pins an older PyTorch. To measure it with this project's, install it and what it imports beside, without what
they pin, and put it on the path of this one run:

.venv/bin/pip install --no-deps --target composer mosaicml torchmetrics lightning-utilities coolname py-cpuinfo \
    mosaicml-streaming tabulate torch-optimizer pytorch-ranger apache-libcloud requests urllib3 idna certifi \
    charset-normalizer importlib_metadata zipp psutil lazy_importer mcli
PYTHONPATH=composer .venv/bin/python benchmarks/peer_composer.py --batch-size 32 --iterations 48 \
    --out results/bench/peers/composer-resnet50-32-b32.json

Composer replaces the bottlenecks of torchvision's ResNets; `rdp bench torchvision/resnet50` measures ours on the same
network. Its "block" method is a `drop_path` iteration of ours; it has no `dropped_part` iterations.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from residualdroppath.models.torchvision_ops import ensure_torchvision_ops
from residualdroppath.records.environment import environment
from residualdroppath.records.intervals import ratio_of_means

METHODS = ("block", "sample")
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON record to write")
    parser.add_argument("--model", default="resnet50", help="a torchvision ResNet made of bottlenecks")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.5], help="drop rates, of every block")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=64, help="timed iterations of each contender")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    record = measure(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    for name, ratio in record["relative_to_plain"].items():
        print(f"{name:<12} {ratio['mean']:.2f}  (95 % interval {ratio['low']:.2f} to {ratio['high']:.2f})")
    print(f"Written to {options.out}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Contenders take turns, each beside a plain iteration of its own turn."""
    ensure_torchvision_ops()
    import composer.functional as cf
    import torchvision

    torch.manual_seed(SEED)
    plain = torchvision.models.get_model(options.model, num_classes=10).to(memory_format=torch.channels_last)
    networks: dict[str, nn.Module] = {}
    for rate in options.rates:
        for method in METHODS:
            network = copy.deepcopy(plain)
            cf.apply_stochastic_depth(network, "ResNetBottleneck", method, rate, "uniform")
            networks[f"{method} {rate:g}"] = network
    shape = (options.batch_size, 3, options.image_size, options.image_size)
    images = torch.randn(shape, device=options.device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, shape[:1], device=options.device)
    run_plain = Iteration(plain.to(options.device), images, labels)
    runs = {name: Iteration(network.to(options.device), images, labels) for name, network in networks.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    warmup = 3
    for turn in range(warmup + options.iterations):
        for name, run in runs.items():
            plain_time, own_time = run_plain(), run()
            if turn >= warmup:
                times[name].append((own_time, plain_time))
    made = environment(torch.device(options.device))
    return {
        "config": {**{k: v for k, v in vars(options).items() if k != "out"}, "seed": SEED},
        "environment": {
            **made,
            "command": shlex.join(["python", *sys.argv]),
            "versions": {**made["versions"], "mosaicml": version("mosaicml")},
        },
        "relative_to_plain": {name: asdict(ratio_of_means(*zip(*pairs, strict=True))) for name, pairs in times.items()},
    }


class Iteration:
    """Times one whole iteration, as `rdp bench` does: SGD with momentum, forward, backward, update."""

    def __init__(self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor):
        self.network, self.images, self.labels = network.train(), images, labels
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def __call__(self) -> float:
        self._wait()
        started = time.perf_counter()
        F.cross_entropy(self.network(self.images), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.images.device.type == "cuda":
            torch.cuda.synchronize()


if __name__ == "__main__":
    main()
