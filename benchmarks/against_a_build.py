r"""This build against that of a named commit: CPU time of `rdp.step()` and of whole iterations, in turn in one run.

Each build runs in a process of its own, all on one thread; the parent lets them do the same iteration one after the
other, so whatever else the machine does meets both. A third process runs this build without the value check.

.venv/bin/python benchmarks/against_a_build.py --commit 9382a5f --out results/bench/builds/9382a5f.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from builds import HERE, Build, in_turn, ratio, served, source_of, write

NETWORKS = {"resnet50d": ("resnet50d", 128), "resnet200d": ("resnet200d", 0), "small_resnet20": ("small_resnet", 32)}
IMAGE_SIZE = 32
STEPS = 2000
PROCESSES = 4  # of each build: two of the same build differ by some percent for all of their lives
SEED = 0


def serve(network: str, options: dict[str, Any]) -> None:
    import torch

    from residualdroppath import ResidualDropPath
    from residualdroppath.models.torchvision_ops import ensure_torchvision_ops

    ensure_torchvision_ops()
    import timm

    from residualdroppath.models.small_resnet import SmallResNet

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    name, batch_size = NETWORKS[network]
    model = SmallResNet(20, 16, in_channels=3, num_classes=10) if name == "small_resnet" else timm.create_model(name)
    model = model.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    rdp = ResidualDropPath(model, 0.5, rate_over_depth="uniform", seed=SEED, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    shape = (batch_size, 3, IMAGE_SIZE, IMAGE_SIZE)
    images = torch.randn(shape).to(memory_format=torch.channels_last) if batch_size else None
    for line in sys.stdin:
        kind, start = rdp.kind, time.process_time_ns()
        if line.strip() == "steps":
            for _ in range(STEPS):
                rdp.step()
            seconds = (time.process_time_ns() - start) / 1e9 / STEPS
        else:
            assert images is not None
            model(images).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            rdp.step()
            seconds = (time.process_time_ns() - start) / 1e9
        print(json.dumps({"seconds": seconds, "kind": kind}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="9382a5f", help="the other build")
    parser.add_argument("--rounds", type=int, default=20, help=f"of {STEPS} steps each")
    parser.add_argument("--iterations", type=int, default=80, help="of resnet50d; ten times as many of the small one")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    record: dict[str, Any] = {
        "config": {"commit": arguments.commit, "image_size": IMAGE_SIZE, "rate": 0.5, "seed": SEED},
        "step_other_over_this": {},
        "iteration_this_over_other": {},
        "value_check": {},
    }
    with source_of(arguments.commit) as other:
        sources = {"this": (HERE / "src", {}), "other": (other, {})}
        for network in ("resnet50d", "resnet200d"):
            builds = {name: Build(__file__, source, network, options) for name, (source, options) in sources.items()}
            in_turn(builds, "steps", 1)
            answers = in_turn(builds, "steps", arguments.rounds)
            record["step_other_over_this"][network] = ratio(answers, "other", "this")
            [build.close() for build in builds.values()]
        sources["without check"] = (HERE / "src", {"check_frozen": False})
        for network, count in (("resnet50d", arguments.iterations), ("small_resnet20", 10 * arguments.iterations)):
            answers: dict[str, list[dict[str, Any]]] = {name: [] for name in sources}
            for _ in range(PROCESSES):
                builds = {
                    name: Build(__file__, source, network, options) for name, (source, options) in sources.items()
                }
                in_turn(builds, "iteration", 4)
                for name, own in in_turn(builds, "iteration", count // PROCESSES).items():
                    answers[name] += own
                [build.close() for build in builds.values()]
            record["iteration_this_over_other"][network] = ratio(answers, "this", "other")
            record["value_check"][network] = ratio(answers, "this", "without check", "dropped_part")
    write(record, arguments.out)


if __name__ == "__main__":
    served(main, serve)
