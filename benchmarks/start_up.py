r"""How long `rdp` takes to answer: help and a typo in CPU seconds; the first line of a training after importing torch.

.venv/bin/python benchmarks/start_up.py --out results/training/start_up.json
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from builds import write

RDP = [sys.executable, "-m", "residualdroppath"]
TARGETS = {"help": 0.3, "typo": 0.3, "first line after torch": 3.0}


def cpu_seconds(command: list[str], code: int) -> float:
    """Of a process and its children, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def seconds_to_first_line(folder: Path) -> float:
    """From the start of `rdp train --data digits` to the first thing that it prints."""
    command = [*RDP, "train", "--data", "digits", "--epochs", "1", "--device", "cpu", "--out", str(folder / "run")]
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    while line and not line.startswith("data: "):  # a warning of the core may come first: not what is waited for
        line = process.stderr.readline()
    seconds = time.perf_counter() - start
    process.kill()
    process.wait()
    assert line.startswith("data: digits"), line
    return seconds


def seconds_of_torch() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    taken: dict[str, list[float]] = {"help": [], "typo": [], "torch": [], "first line": []}
    for _ in range(arguments.rounds + 1):  # the first one reads files that later ones find in memory
        taken["help"].append(cpu_seconds([*RDP, "--help"], 0))
        taken["typo"].append(cpu_seconds([*RDP, "trian"], 2))
        taken["torch"].append(seconds_of_torch())
        with tempfile.TemporaryDirectory() as folder:
            taken["first line"].append(seconds_to_first_line(Path(folder)))
    pairs = list(zip(taken["first line"][1:], taken["torch"][1:], strict=True))
    of_all = {
        "help": taken["help"][1:],
        "typo": taken["typo"][1:],
        "first line after torch": [line - torch for line, torch in pairs],
    }
    record: dict[str, Any] = {"config": {"rounds": arguments.rounds, "targets": TARGETS}}
    for name, seconds in of_all.items():
        low, median, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
        record[name] = {"seconds": median, "quartiles": [low, high], "target": TARGETS[name]}
    write(record, arguments.out)


if __name__ == "__main__":
    main()
