"""`python -m tests.compatibility.run`: the tests of the core over versions of Python and torch, as a record.

Each cell gets an environment of its own, with torch, the libraries whose models the tests take, and pytest. A cell
that is not named keeps what the record holds of it; one that was never run is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "results" / "compatibility" / "core.json"
INTERNALS = ROOT / "src" / "residualdroppath" / "core" / "torch_internals.py"
PYTHONS = ("3.11", "3.12", "3.13")
TORCHES = ("2.6.0", "2.9.1", "2.13.0", "2.14.1", "2.15.0")
# Of the libraries that the tests of the core use; torchvision goes with torch, and pip finds the version.
PACKAGES = (
    "timm", "transformers", "accelerate", "peft", "numpy", "scipy", "onnx", "onnxscript", "pytest", "hypothesis",
)  # fmt: skip
Cell = tuple[str, str]  # versions of Python and of torch
VERSIONS = "import json, platform, torch; print(json.dumps([platform.python_version(), torch.__version__]))"


def default_cells() -> list[Cell]:
    """All versions of torch on the oldest Python, and the newest torch on all of Python."""
    return [*((PYTHONS[0], torch) for torch in TORCHES), *((python, TORCHES[-1]) for python in PYTHONS[1:])]


def as_cell(text: str) -> Cell:
    """`3.11:2.6.0` as a pair. Raises `ValueError`, which argparse shows, for anything else."""
    python, colon, torch = text.partition(":")
    if not (python and colon and torch):
        raise ValueError(f"a cell must be PYTHON:TORCH, such as 3.11:2.6.0, got {text!r}.")
    return python, torch


def interpreter(version: str) -> str | None:
    """The path of a Python of this version; None where there is none that runs."""
    name = shutil.which(f"python{version}")
    if name is None or subprocess.run([name, "-c", ""], capture_output=True).returncode:
        return None
    return name


def pinned() -> list[str]:
    """Requirements of `PACKAGES` as they are in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    versions = dict(line.split("==") for line in lines if "==" in line)
    return [f"{name}=={versions[name]}" for name in PACKAGES]


@contextmanager
def environment(cell: Cell, kept: Path | None) -> Iterator[Path]:
    """The Python of an environment for the cell: of the folder `kept` if it is there, else a new one.

    Raises `LookupError`, which names the reason, where it cannot be made.
    """
    python, torch = cell
    with tempfile.TemporaryDirectory() as temporary:
        folder = (kept or Path(temporary)) / f"python{python}-torch{torch}"
        if not folder.exists():
            if (base := interpreter(python)) is None:
                raise LookupError(f"no Python {python} on this machine")
            subprocess.run([base, "-m", "venv", folder], check=True)
            words = [folder / "bin" / "pip", "install", "--quiet", f"torch=={torch}", "torchvision", *pinned()]
            if (done := subprocess.run(words, capture_output=True, text=True)).returncode:
                shutil.rmtree(folder)
                raise LookupError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        yield folder / "bin" / "python"


def result_of(cell: Cell, kept: Path | None, tests: Sequence[str]) -> dict[str, Any]:
    """What came out of a cell: versions, counts, failing tests, and the names that its torch lacks."""
    try:
        with environment(cell, kept) as python:
            return _run(python, tests)
    except LookupError as error:
        return {"state": "not installed", "reason": str(error)}


def _run(python: Path, tests: Sequence[str]) -> dict[str, Any]:
    # That machine's own packages only, and this checkout.
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONNOUSERSITE": "1"}

    def output(*words: str | Path) -> Any:
        done = subprocess.run([python, *words], env=env, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    versions = dict(zip(("python", "torch"), output("-c", VERSIONS), strict=True))
    missing = output(Path(__file__).with_name("private_names.py"), INTERNALS)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-o", "addopts=-q --strict-markers -m 'not full'", "-p", "no:cacheprovider", f"--junitxml={report}"]
        subprocess.run([python, "-m", "pytest", *options, *tests], cwd=ROOT, env=env)
        found = counts(report.read_text()) if report.exists() else {"failures": ["the tests could not be collected"]}
    state = "failed" if found["failures"] or missing else "passed"
    return {**versions, "state": state, "missing": missing, **found, "seconds": round(time.perf_counter() - start)}


def counts(report: str) -> dict[str, Any]:
    """Passed, skipped and failing tests of a JUnit report."""
    cases = list(ElementTree.fromstring(report).iter("testcase"))
    failing = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - len(failing) - skipped,
        "skipped": skipped,
        "failures": sorted(f"{case.get('classname')}::{case.get('name')}" for case in failing),
    }


def line_of(cell: Cell, found: dict[str, Any]) -> str:
    """A cell in one line; red where its torch lacks private names."""
    head = f"Python {cell[0]}, torch {cell[1]}: "
    if found["state"] == "not installed":
        return f"{head}not installed: {found['reason']}"
    if found["missing"]:
        return f"\033[31m{head}torch lacks {', '.join(found['missing'])}\033[0m"
    if "passed" not in found:
        return head + found["failures"][0]
    return f"{head}{found['passed']} passed, {found['skipped']} skipped, {len(found['failures'])} failed"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compatibility.run", description=__doc__)
    parser.add_argument("cells", nargs="*", type=as_cell, metavar="PYTHON:TORCH", help="default: each axis, whole")
    parser.add_argument("--environments", type=Path, metavar="DIR", help="keep environments there, and use them again")
    parser.add_argument("--tests", nargs="+", default=["tests/core"], help="default: tests/core")
    parser.add_argument("--out", type=Path, default=RECORD, help="the record; cells that it has stay in it")
    given = parser.parse_args(arguments)
    record: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {"cells": {}}
    record |= {"pythons": PYTHONS, "torches": TORCHES, "packages": pinned(), "tests": given.tests}
    results = []
    for cell in given.cells or default_cells():
        results.append(result_of(cell, given.environments, given.tests))
        print(line_of(cell, results[-1]), flush=True)
        record["cells"][":".join(cell)] = results[-1]
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if any(found["state"] == "failed" for found in results) else 0


if __name__ == "__main__":
    sys.exit(main())
