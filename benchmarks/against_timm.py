r"""Iterations per second against timm's own `train.py`: plain training, and the method at a uniform rate.

git clone https://github.com/huggingface/pytorch-image-models ../timm
.venv/bin/python benchmarks/against_timm.py --timm ../timm --out results/training/against_timm.json [--shards FOLDER]

The same images (files in class folders), batches, network, optimizer, threads and memory format, and no augmentation.
Each training is a process of its own; they take turns, in an order that is turned around every round, so that
whatever else the machine does meets all. A time is that from the end of an update to the end of the next, reading of
data included; the first of each epoch and all of the first epoch are left out. `--shards` takes images of WebDataset
shards, else images are made.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from builds import HERE, write

OURS: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain"},
    "residual_drop_path": {"method": "residual_drop_path"},
    "residual_drop_path_stop_gradient": {"method": "residual_drop_path", "freeze": "stop_gradient"},
}
TARGETS = {"plain": 1.0, "residual_drop_path": 1.5, "residual_drop_path_stop_gradient": 1.5}
CLASSES = 10
TIMM_LINE = re.compile(r"Train: (\d+) \[ *(\d+)/\d+ .*?Time: ([\d.]+)s")


def make_images(folder: Path, per_class: int, size: int, shards: Path | None) -> None:
    """JPEG files, PART/CLASS/NUMBER.jpg."""
    import io

    import torch
    from PIL import Image
    from torch.nn.functional import interpolate

    from residualdroppath.data.request import Request
    from residualdroppath.data.sources import read_source

    torch.manual_seed(0)
    source = None if shards is None else read_source(Request(f"wds/{shards}", Path(), image_size=size)).train
    for label in range(CLASSES):
        for part, count in (("train", per_class), ("val", 2)):
            target = folder / part / f"class{label}"
            target.mkdir(parents=True)
            for number in range(count):
                if source is not None:
                    place = (source.labels == label).nonzero()[number, 0]
                    image = next(iter(source.source.batches([place[None]])))[0].permute(1, 2, 0)
                else:  # smooth, as photographs are to a decoder
                    image = interpolate(torch.rand(1, 3, 8, 8), size, mode="bicubic")[0].clamp(0, 1)
                    image = (image * 255).byte().permute(1, 2, 0)
                buffer = io.BytesIO()
                Image.fromarray(image.numpy()).save(buffer, "JPEG", quality=90)
                (target / f"{number}.jpg").write_bytes(buffer.getvalue())


# timm's script as it is; builds of torchvision without operators are made importable first.
RUN_TIMM = """
import runpy, sys
from residualdroppath.models.torchvision_ops import ensure_torchvision_ops
ensure_torchvision_ops()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def timm_times(arguments: argparse.Namespace, data: Path) -> list[float]:
    options = {
        "data-dir": data, "train-split": "train", "val-split": "val", "model": arguments.model, "num-classes": CLASSES,
        "img-size": arguments.image_size, "batch-size": arguments.batch_size, "epochs": arguments.epochs, "opt": "sgd",
        "lr": 0.01, "warmup-epochs": 0, "device": "cpu", "workers": arguments.workers, "log-interval": 1,
        "output": data.parent / "timm",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    script = [sys.executable, "-c", RUN_TIMM, str(arguments.timm / "train.py")]
    command = [*script, *words, "--no-aug", "--no-prefetcher", "--channels-last"]
    paths = f"{arguments.timm}{os.pathsep}{HERE / 'src'}"
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = TIMM_LINE.findall(done.stdout + done.stderr)
    assert done.returncode == 0 and found, (done.stdout + done.stderr)[-2000:]
    return [float(seconds) for epoch, update, seconds in found if int(epoch) and int(update)]


def our_times(arguments: argparse.Namespace, data: Path, name: str) -> list[float]:
    options = {each: getattr(arguments, each) for each in ("model", "batch_size", "epochs", "threads", "image_size")}
    settings = {**options, **OURS[name], "data": str(data), "drop_path_rate": arguments.rate}
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "PYTHONPATH": str(HERE / "src")}
    command = [sys.executable, __file__, "--serve", json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def serve(settings: dict[str, Any]) -> None:
    """One of our trainings, by `rdp train`'s own loop; prints its times."""
    from residualdroppath.training import run
    from residualdroppath.training.recipe import TrainConfig
    from residualdroppath.training.trainer import Trainer

    ends: list[tuple[int, float]] = []
    train_iteration = Trainer.train_iteration

    def timed(self: Trainer, *batch: Any) -> Any:
        made = train_iteration(self, *batch)
        ends.append((self.epoch, time.perf_counter()))
        return made

    Trainer.train_iteration = timed
    config = TrainConfig(
        **settings, rate_over_depth="uniform", optimizer="sgd", lr=0.01, warmup=0.0, crop_padding=0, mirror=False,
        channels_last=True, device="cpu",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run.train(config, Path(folder) / "run", on_epoch=lambda epoch, epochs: None)
    pairs = zip(ends, ends[1:], strict=False)
    print(json.dumps([late - early for (before, early), (epoch, late) in pairs if epoch and before == epoch]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm", type=Path, required=True, help="a checkout, with train.py")
    parser.add_argument("--shards", type=Path, help="folder of WebDataset shards to take images from")
    parser.add_argument("--model", default="resnet50d")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=11, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=4, help="the first is not timed")
    parser.add_argument("--rate", type=float, default=0.1, help="uniform over depth")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="of timm; our images are decoded once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.timm = arguments.timm.resolve()
    means: dict[str, list[float]] = {"timm": [], **{name: [] for name in OURS}}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "set"
        per_class = -(-arguments.batch_size * arguments.batches // CLASSES)
        make_images(data, per_class, arguments.image_size, arguments.shards)
        for number in range(arguments.rounds):
            for name in list(means)[:: 1 if number % 2 else -1]:
                taken = timm_times(arguments, data) if name == "timm" else our_times(arguments, data, name)
                means[name].append(statistics.mean(taken))
                print(f"round {number + 1}, {name}: {1 / means[name][-1]:.2f} iterations per second", file=sys.stderr)
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=arguments.timm, capture_output=True, text=True
    ).stdout.strip()
    options = {name: value for name, value in vars(arguments).items() if name not in ("out", "timm", "shards")}
    record: dict[str, Any] = {
        "config": {**options, "images": "made" if arguments.shards is None else arguments.shards.name},
        "timm": {"commit": revision, "version": (arguments.timm / "timm/version.py").read_text().split("'")[1]},
        "iterations_per_second": {name: [1 / seconds for seconds in own] for name, own in means.items()},
    }
    for method, target in TARGETS.items():
        ratios = [theirs / ours for theirs, ours in zip(means["timm"], means[method], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        record[f"{method}_over_timm"] = {"median": median, "quartiles": [low, high], "target": target}
    write(record, arguments.out)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve(json.loads(sys.argv[2]))
    else:
        main()
