"""Accuracy against time of pruned networks: those that a study trained, without 1 to half of their branches.

Which branches are out was chosen by the study on validation images, and its accuracies are of its test images. Here
each network is pruned, and its forward is timed in turn with that of the whole network: one thread, evaluation mode.

.venv/bin/python benchmarks/pruned_time.py results/studies/overfit_conv.json --runs runs/studies/runs \
    --out results/pruning/overfit_conv.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from builds import write
from torch import Tensor, nn

import residualdroppath
from residualdroppath.models.classifier import make_classifier
from residualdroppath.records.tensors import read_weights
from residualdroppath.training.recipe import TrainConfig, read_config

VARIANTS = ("plain", "drop path", "ResidualDroppath (4, 1) union", "the paper's form")
ROUNDS = 40


def network(folder: Path, config: TrainConfig, size: int) -> nn.Module:
    """The trained network of a run on images of three channels, in evaluation mode."""
    made = make_classifier(
        config.model,
        in_channels=3,
        num_classes=10,
        image_size=size,
        depth=config.depth,
        width=config.width,
        model_options=config.model_options,
    )
    made.model.load_state_dict(read_weights(folder / "model.safetensors"))
    return made.model.eval()


def seconds(model: nn.Module, images: Tensor) -> float:
    start = time.process_time()
    model(images)
    return time.process_time() - start


@torch.inference_mode()
def time_ratios(whole: nn.Module, pruned: list[nn.Module], images: Tensor) -> list[float]:
    """Median over rounds of each pruned network's seconds over those of the whole one, taken in turn."""
    for model in (whole, *pruned):
        model(images)
    ratios: list[list[float]] = [[] for _ in pruned]
    for _ in range(ROUNDS):
        for found, model in zip(ratios, pruned, strict=True):
            first = seconds(whole, images)
            own = seconds(model, images)
            found.append(2 * own / (first + seconds(whole, images)))
    return [statistics.median(found) for found in ratios]


def of_variant(row: dict[str, Any], runs: Path, images: Tensor) -> list[dict[str, Any]]:
    """One entry for each number of branches out: seconds and test accuracy, mean over the seeds."""
    by_run = []
    for run in row["runs"]:
        folder = runs / run["key"]
        measured = json.loads((folder / "elastic_depth.json").read_text())
        whole = network(folder, read_config(TrainConfig, folder / "config.yaml"), images.shape[-1])
        out = [measured["chosen_branches"][: size + 1] for size in range(len(measured["chosen"]))]
        pruned = [residualdroppath.prune(whole, branches) for branches in out]
        points = zip(time_ratios(whole, pruned, images), measured["chosen"], strict=True)
        by_run.append([(1.0, measured["whole"]), *points])
        print(row["variant"], run["seed"], *(f"{ratio:.3f}" for ratio, _ in by_run[-1]))
    return [
        {
            "branches_out": size,
            "time": statistics.fmean(ratio for ratio, _ in values),
            "test_accuracy": statistics.fmean(accuracy for _, accuracy in values),
            "n": len(values),
        }
        for size, values in enumerate(zip(*by_run, strict=True))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, help="of a study with the measure elastic_depth")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of its runs")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record = json.loads(arguments.record.read_text())
    size = record["definition"]["base"]["image_size"]
    images = torch.randn(arguments.batch_size, 3, size, size, generator=torch.Generator().manual_seed(0))
    rows = {row["variant"]: row for row in record["rows"] if row["variant"] in VARIANTS}
    found = {name: of_variant(rows[name], arguments.runs, images) for name in VARIANTS}
    write({"study": record["file"], "batch_size": arguments.batch_size, "rounds": ROUNDS, "rows": found}, arguments.out)


if __name__ == "__main__":
    main()
