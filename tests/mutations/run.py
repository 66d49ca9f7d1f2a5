"""`python -m tests.mutations.run`: each fault in a copy of the source, and the tests that must fail on it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .mutations import CORE, MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
PASSED, FAILED = 0, 1  # exit statuses of pytest; others are errors of collection or usage, and crashes
MARKERS = {"default": "-m 'not full'", "full": ""}


@dataclass(frozen=True)
class Outcome:
    name: str
    status: int
    seconds: float
    output: str

    def __str__(self) -> str:
        word = {PASSED: "SURVIVED", FAILED: "killed"}.get(self.status, "BROKEN")
        failed = (line.split()[1] for line in self.output.splitlines() if line.startswith("FAILED "))
        detail = next(failed, "") if self.status in (PASSED, FAILED) else f"\n{self.output}"
        return f"{word:<8}  {self.seconds:5.1f} s  {self.name:<60}  {detail}"


def run_tests(name: str, mutations: Iterable[Mutation], tests: Sequence[str], tier: str) -> Outcome:
    """The tests on a copy of the source with these mutations."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for mutation in mutations:
            (source / CORE / mutation.file).write_text(mutation.mutated(source))
        options = ["-o", f"addopts=-q --strict-markers {MARKERS[tier]}", *"-p no:xdist -p no:cacheprovider -x".split()]
        result = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(source)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return Outcome(name, result.returncode, time.perf_counter() - start, result.stdout)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations to run; all by default")
    parser.add_argument("--tier", choices=tuple(MARKERS), default="default", help="which tests of a selection run")
    parser.add_argument("-j", type=int, default=1, metavar="N", dest="jobs", help="mutations at a time")
    given = parser.parse_args(arguments)
    by_name = {mutation.name: mutation for mutation in MUTATIONS}
    if unknown := [name for name in given.names if name not in by_name]:
        parser.error(f"there is no mutation {unknown[0]!r}; there are {', '.join(by_name)}")
    chosen = [by_name[name] for name in given.names] or list(MUTATIONS)

    selected = sorted({test for mutation in chosen for test in mutation.tests})
    plain = run_tests("source as it is", [], selected, given.tier)
    if plain.status != PASSED:
        print(f"The source as it is must pass these tests:\n{plain.output}")
        return 1
    num_killed = 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for outcome in pool.map(lambda m: run_tests(m.name, [m], m.tests, given.tier), chosen):
            num_killed += outcome.status == FAILED
            print(outcome, flush=True)
    print(f"{num_killed} of {len(chosen)} mutations killed")
    return 0 if num_killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
