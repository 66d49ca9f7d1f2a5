r"""Costs and a study of accuracy on one large GPU, in at most so many minutes, with what `make gpu-carry` has gathered.

make gpu-carry DATA=../shared/data/cifar10-jpeg     # where there is a network: fills build/gpu, 40 MiB
make gpu                                            # on the GPU; records land in $OUT, by default in runs/gpu
python benchmarks/gpu.py --tiny                     # all of it on a CPU, in tiny sizes, in about two minutes

Eager costs first, alone on the GPU. Then `recipes/studies/gpu_cifar10.yaml`, six trainings at once, each in
`runs.json` as soon as it ends; next to them networks are compiled into a cache, so that what they cost compiled can be
timed at the end, alone again. What has no time left is stopped, and `steps.json` has it so.

Not yet run on a GPU. By estimate, on an H200 and 16 cores: 2 minutes of eager costs; 4.5 of the study, of which 3.3 are
training (three seeds at 40,000 images a second over all trainings, seven at 80,000); 2 of compiled costs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CARRIED = ROOT / "build" / "gpu"
STUDY = ROOT / "recipes" / "studies" / "gpu_cifar10.yaml"
RDP = [sys.executable, "-c", "import sys; sys.argv[0] = 'rdp'; from residualdroppath.cli.main import main; main()"]
NETWORKS = {  # model, pixels, images an iteration
    "resnet50d-32": ("resnet50d", 32, 512),
    "resnet50d-224": ("resnet50d", 224, 128),
    "vit_small-224": ("vit_small_patch16_224", 224, 128),
}
ON_GPU = "--device cuda --dtype bf16 --channels-last --plans 32 --no-counts --floor-rounds 0".split()
TINY_NETWORKS = {"small_resnet-8": ("small_resnet", 8, 4)}
ON_CPU = "--device cpu --dtype bf16 --channels-last --plans 2 --no-counts --floor-rounds 0 --depth 8 --width 8".split()
TINY_BASE = {"device": "cpu", "model": "small_resnet", "depth": 8, "width": 8, "image_size": 8, "train_size": 200}
TINY_BASE |= {"epochs": 2, "batch_size": 20}
# Seconds.
EAGER = 60.0  # of one record, at most
COMPILED = 135.0  # kept for all compiled records
REPORT = 25.0  # of the study, after its trainings
CLOSING = 5.0


def bench_words(name: str, out: Path, *, compiled: bool, tiny: bool) -> list[str]:
    """The `rdp bench` of a network; fewer networks are compiled than are timed eagerly."""
    model, size, batch_size = (TINY_NETWORKS if tiny else NETWORKS)[name]
    return [
        *["bench", model, "--image-size", str(size), "--batch-size", str(batch_size)],
        *(ON_CPU if tiny else ON_GPU),
        *(["--compile"] if compiled else []),
        *["--contenders", "plain", *([] if compiled else ["timm"]), "parameters"],
        *([] if compiled else ["stop_gradient"]),
        *["--out", str(out / f"{name}{'-compiled' if compiled else ''}.json"), "--overwrite"],
    ]


def study_words(file: Path, out: Path, record: Path, minutes: float, *, tiny: bool) -> list[str]:
    seeds = ["--seeds", "2", "--threads", "1"] if tiny else []
    words = ["study", str(file), "--out", str(out), "--record", str(record), "--minutes", f"{minutes:.2f}"]
    return [*words, "--workers", "2" if tiny else "6", *seeds]


def study_minutes(seconds_left: float) -> float:
    """What the study may use of the time that is left; 0 or less where there is none."""
    return (seconds_left - COMPILED - REPORT - CLOSING) / 60


def tiny_study(path: Path) -> Path:
    """The study with tiny networks and few images, written to a file."""
    import yaml

    values = yaml.safe_load(STUDY.read_text())
    path.write_text(yaml.safe_dump({**values, "base": {**values["base"], **TINY_BASE}}, sort_keys=False))
    return path


def ended_runs(study: Path) -> dict[str, Any]:
    """What is kept of the trainings that have ended, by key, and of the costs that their lengths follow from."""
    runs = {}
    for evaluation in sorted(study.glob("runs/*/evaluation.json")):
        files = {
            name: json.loads((evaluation.parent / f"{name}.json").read_text()) for name in ("result", "evaluation")
        }
        runs[evaluation.parent.name] = {"recipe": (evaluation.parent / "config.yaml").read_text(), **files}
    costs = {path.stem: json.loads(path.read_text()) for path in sorted(study.glob("runs/costs/*.json"))}
    return {"costs": costs, "runs": runs}


def write(path: Path, value: Any) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)


@dataclass
class Session:
    """Commands of `rdp` until `ends_at`, by `time.monotonic`: records in `out`, all else in `work`."""

    out: Path
    work: Path
    ends_at: float
    began: float = field(default_factory=time.monotonic)
    steps: list[dict[str, Any]] = field(default_factory=list)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.ends_at - time.monotonic()

    def start(self, words: list[str], folder: Path = ROOT, *, behind: bool = False) -> subprocess.Popen[bytes]:
        """A command, its output in `log.txt`; `behind`: whatever else runs has the cores first."""
        paths = [str(ROOT / "src"), str(CARRIED / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(self.work / "compiled")
        command = [*(["nice", "-n", "19"] if behind else []), *RDP, *words]
        with (self.out / "log.txt").open("ab") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self.running.append(process)
        return process

    def run(
        self,
        name: str,
        words: list[str],
        seconds: float,
        folder: Path = ROOT,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """A command that is stopped after so many seconds, and before the session ends; noted in `steps.json`."""
        since, until = time.monotonic(), min(time.monotonic() + seconds, self.ends_at - CLOSING)
        outcome = "no time left"
        if since < until:
            process = self.start(words, folder)
            while process.poll() is None and time.monotonic() < until:
                meanwhile()
                time.sleep(0.5)
            stopped = process.poll() is None
            self.stop(process)
            outcome = "stopped for time" if stopped else "done" if process.returncode == 0 else "failed"
        took = round(time.monotonic() - since, 1)
        self.steps.append({"step": name, "command": ["rdp", *words], "outcome": outcome, "seconds": took})
        self.collect()
        print(f"{time.monotonic() - self.began:5.0f} s  {name}: {outcome}, {took} s", flush=True)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.running.remove(process)

    def collect(self) -> None:
        """Few files, each written anew: a kill loses only what was running."""
        commit = CARRIED / "commit"
        carried = commit.read_text().strip() if commit.is_file() else None
        write(self.out / "steps.json", {"commit": carried, "steps": self.steps})
        costs = {path.stem: json.loads(path.read_text()) for path in sorted((self.work / "bench").glob("*.json"))}
        write(self.out / "costs.json", costs)
        write(self.out / "runs.json", ended_runs(self.work / "study"))


def run_study(session: Session, data: Path, *, tiny: bool) -> None:
    """The study, and next to its trainings, once costs have been measured, all that `compiled` records compile."""
    file = tiny_study(session.work / "study.yaml") if tiny else STUDY
    study = session.work / "study"
    paths = [Path(os.path.relpath(path, data.parent)) for path in (file, study, session.out / "study.json")]
    behind: list[subprocess.Popen[bytes]] = []
    seen = 0

    def meanwhile() -> None:
        nonlocal seen
        if not behind and any(study.glob("runs/*/config.yaml")):
            for name in TINY_NETWORKS if tiny else NETWORKS:
                words = bench_words(name, session.work / "bench-behind", compiled=True, tiny=tiny)
                behind.append(session.start(words, behind=True))
        if (ended := len(list(study.glob("runs/*/evaluation.json")))) > seen:
            seen = ended
            session.collect()

    minutes = study_minutes(session.left)
    words = study_words(*paths, max(minutes, 0.01), tiny=tiny)
    session.run("study", words, 60 * minutes + REPORT, data.parent, meanwhile)
    for process in behind:
        session.stop(process)
    if (study / "index.html").is_file():
        shutil.copy(study / "index.html", session.out / "study.html")


def require(data: Path, *, tiny: bool) -> None:
    """Ends with what is missing: a package, a GPU or the data."""
    sys.path[:0] = [str(ROOT / "src"), str(CARRIED / "site")]
    try:
        import pyarrow.parquet  # noqa: F401
        import torch

        import residualdroppath.cli.study
        import residualdroppath.experiments.bench.report
        import residualdroppath.experiments.studies.page
        import residualdroppath.experiments.studies.run  # noqa: F401
        from residualdroppath.models.torchvision_ops import ensure_torchvision_ops

        ensure_torchvision_ops()
        import timm  # noqa: F401
    except ImportError as error:
        raise SystemExit(f"error: {error}; carry its package along: make gpu-carry GPU_PACKAGES='... NAME'") from error
    if not tiny and not torch.cuda.is_available():
        raise SystemExit(
            f"error: a CUDA device is needed, torch {torch.__version__} finds none; try all on the CPU with --tiny"
        )
    if not (data / "train.parquet").is_file():
        raise SystemExit(f"error: {data} holds no train.parquet; copy the data there: make gpu-carry DATA=FOLDER")


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything, at most")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu", help="folder of the records")
    parser.add_argument("--data", type=Path, default=CARRIED / "cifar10-jpeg", help="folder of the Parquet files")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, on the CPU")
    arguments = parser.parse_args()
    data, tiny = arguments.data.resolve(), arguments.tiny
    require(data, tiny=tiny)
    work = ROOT / "runs" / ("gpu-work-tiny" if tiny else "gpu-work")
    for folder in (arguments.out, work / "bench"):
        folder.mkdir(parents=True, exist_ok=True)
    session = Session(arguments.out.resolve(), work, began + 60 * arguments.minutes, began)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        networks = TINY_NETWORKS if tiny else NETWORKS
        bench = Path("runs") / work.name / "bench"
        for name in networks:
            session.run(f"{name}, eager", bench_words(name, bench, compiled=False, tiny=tiny), EAGER)
        run_study(session, data, tiny=tiny)
        for name in networks:
            session.run(f"{name}, compiled", bench_words(name, bench, compiled=True, tiny=tiny), session.left)
    finally:
        for process in list(session.running):
            session.stop(process)
    failed = [step["step"] for step in session.steps if step["outcome"] == "failed"]
    print(f"records: {arguments.out}" + (f"\nfailed: {'; '.join(failed)} (log.txt)" if failed else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
