r"""What the worst plan keeps for the backward, by how it is drawn: bytes of a forward, relative to plain training's.

The network, the plans and the seed decide these figures, not the machine. `peaks` are of a machine: by how much a
process of its own grows in one forward and backward, under the plan that keeps most and in plain training.

.venv/bin/python benchmarks/worst_plan.py --out results/memory/worst_plan.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from builds import write

MODEL, RATE, SEED = "resnet50d", 0.5, 0
SIZES = {32: 16, 224: 2}  # pixels, images
SIZES_OF_PEAKS = {32: 256, 224: 16}  # so that activations are most of the memory
LARGER = 1.25
DRAWS = ("independent", "balanced")
KINDS = ("drop_path", "dropped_part")


def network(size: int, batch_size: int, draw: str) -> tuple[Any, Any, Any]:
    """A network, the method over it, and a batch."""
    import torch

    from residualdroppath.models.torchvision_ops import ensure_torchvision_ops

    ensure_torchvision_ops()
    import timm

    from residualdroppath import ResidualDropPath

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = timm.create_model(MODEL, num_classes=10).train()
    options: dict[str, Any] = {"rate_over_depth": "uniform", "freeze": "stop_gradient", "draw": draw, "seed": SEED}
    return model, ResidualDropPath(model, RATE, **options), torch.randn(batch_size, 3, size, size)


def saved(size: int, batch_size: int, draw: str, num_plans: int) -> dict[str, Any]:
    """By kind, bytes that plans keep over those of plain training, and the iteration that keeps most."""
    from residualdroppath.analysis.saved_bytes import saved_bytes

    model, rdp, images = network(size, batch_size, draw)

    def kept() -> int:
        with saved_bytes(model) as counted:
            output = model(images)
            total = counted.total
        output.sum().backward()  # frees what was saved, which holds itself where hooks saw it
        model.zero_grad()
        return total

    with rdp.paused():
        plain = kept()
    found: dict[str, list[tuple[float, int]]] = {kind: [] for kind in KINDS}
    for _ in range(2 * num_plans):
        found[rdp.kind].append((kept() / plain, rdp.iteration))
        rdp.step()
    return {
        kind: {
            "mean": statistics.fmean(part for part, _ in plans),
            "worst": max(plans)[0],
            "worst_at_iteration": max(plans)[1],
        }
        for kind, plans in found.items()
    }


def peak(size: int, batch_size: int, draw: str, iteration: int | None) -> int:
    """Bytes by which this process grows in the forward and backward of an iteration; None: of plain training."""
    import torch

    model, rdp, images = network(size, batch_size, draw)
    if iteration is None:
        rdp.remove()
    else:
        rdp.load_state_dict({**rdp.state_dict(), "iteration": iteration})
    with torch.no_grad():
        model(images[:2])  # what is made once
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the largest so far is that of now
    model(images).square().sum().backward()
    return memory("VmHWM") - before


def memory(line: str) -> int:
    """Bytes of this process, by Linux: VmRSS now, VmHWM at most."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{line}:")[1].split()[0])


def peak_of_a_process(*arguments: Any) -> int:
    command = [sys.executable, __file__, "--measure", json.dumps(arguments)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peaks(size: int, worst: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Relative to plain training: each worst plan, with the same batch and with a larger one."""
    batch_size = SIZES_OF_PEAKS[size]
    plain = peak_of_a_process(size, batch_size, DRAWS[0], None)
    larger = {"same_batch": batch_size, f"batch_{LARGER}x": int(LARGER * batch_size)}
    return {
        "batch_size": batch_size,
        "plain_bytes": plain,
        **{
            draw: {
                kind: {
                    name: peak_of_a_process(size, number, draw, iteration) / plain for name, number in larger.items()
                }
                for kind, iteration in of_kinds.items()
            }
            for draw, of_kinds in worst.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=int, default=100, help="of each kind")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    config = {"model": MODEL, "rate": RATE, "rate_over_depth": "uniform", "freeze": "stop_gradient"}
    record: dict[str, Any] = {
        "config": {**config, "plans": arguments.plans, "batch_size": SIZES, "seed": SEED},
        "saved_over_plain": {},
        "peak_over_plain": {},
    }
    for size, batch_size in SIZES.items():
        found = {draw: saved(size, batch_size, draw, arguments.plans) for draw in DRAWS}
        worst = {draw: {kind: found[draw][kind]["worst_at_iteration"] for kind in KINDS} for draw in DRAWS}
        record["saved_over_plain"][size] = found
        print(size, json.dumps(found), flush=True)
        record["peak_over_plain"][size] = peaks(size, worst)
        print(size, json.dumps(record["peak_over_plain"][size]), flush=True)
    write(record, arguments.out)


if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(peak(*json.loads(sys.argv[sys.argv.index("--measure") + 1])))
    else:
        main()
