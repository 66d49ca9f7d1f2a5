"""Two builds in one run: each in a process of its own, one thread each, answering in turn."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent


class Build:
    """A process that runs `script --serve NETWORK OPTIONS` under one build, and answers with seconds of CPU time."""

    def __init__(self, script: str, source: Path, network: str, options: dict[str, Any] | None = None):
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(script).resolve()), "--serve", network, json.dumps(options or {})]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def source_of(commit: str) -> Iterator[Path]:
    """The source folder of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(f"git archive {commit} src | tar x -C {folder}", shell=True, check=True, cwd=HERE)
        yield Path(folder) / "src"


def served(main: Any, serve: Any) -> None:
    """Run `serve(network, options)` where this process is a build, else `main()`."""
    if "--serve" in sys.argv:
        place = sys.argv.index("--serve")
        serve(sys.argv[place + 1], json.loads(sys.argv[place + 2]))
    else:
        main()


def in_turn(builds: dict[str, Build], what: str, count: int) -> dict[str, list[dict[str, Any]]]:
    """Answers of all builds, one after the other; the order is turned around every time."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in builds}
    for index in range(count):
        for name in list(builds)[:: 1 if index % 2 else -1]:
            answers[name].append(builds[name].ask(what))
    return answers


def ratio(answers: dict[str, list[dict[str, Any]]], over: str, under: str, kind: str | None = None) -> dict[str, Any]:
    """The median over pairs of the same iteration, and the middle half of them."""
    pairs = zip(answers[over], answers[under], strict=True)
    ratios = [a["seconds"] / b["seconds"] for a, b in pairs if kind is None or a["kind"] == b["kind"] == kind]
    low, median, high = statistics.quantiles(ratios, n=4)
    total = sum(a["seconds"] for a in answers[over]) / sum(b["seconds"] for b in answers[under])
    return {"median": median, "quartiles": [low, high], "of_sums": total if kind is None else None, "n": len(ratios)}


def write(record: dict[str, Any], path: Path) -> None:
    """To the file, with what was measured on; and all but that to the terminal."""
    import torch

    from residualdroppath.records.environment import environment

    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {**record, "environment": {**environment(torch.device("cpu")), "threads": 1}}
    path.write_text(json.dumps(whole, indent=2) + "\n")
    print(json.dumps(record, indent=2))
