"""Hold every written model to its expected branches and to the contracts.

    PYTHONPATH=tests python -m zoo.coverage [--failed]

First all branches, then contracts, slow files first, so that no core waits at the end. Writes results/coverage.json
and, from it, docs/coverage.md; fails where a file does not pass that `open.yaml` does not list. Optional libraries
(tests/zoo/requirements.txt) that are not installed are skipped, and the page gives the reason.
With `--failed` only files that did not pass the last time run again; the other rows stay, and the record says so.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import torch
from rich.progress import Progress

from contracts import walk
from contracts.option_pairs import row_of_each_mode
from residualdroppath.errors import first_line
from residualdroppath.records.environment import environment

from .check import differences, found_branches
from .expected import ExpectedFile, ExpectedModel, libraries, load_expected, open_files, version_of, why_absent
from .models import build, inputs, number_of, some_model_of, subject

ROOT = Path(__file__).parents[2]
RECORD, PAGE = ROOT / "results" / "coverage.json", ROOT / "docs" / "coverage.md"
LIBRARIES = libraries()


@dataclass(frozen=True)
class Row:
    """What came out for one model file; `contracts` is None where they were not run.

    `reason` says why it does not pass, or why nothing is expected; `seconds` what both took.
    """

    library: str
    file: str
    models: list[str]
    blocks: list[str]
    expected: int
    found: int
    passes: bool
    contracts: bool | None
    reason: str
    seconds: float


def check_file(file: ExpectedFile) -> Row:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    if file.none:
        name, network = some_model_of(file)
        row = _row_of_nothing(file, name, network)
    else:
        wrong: list[str] = []
        blocks: dict[str, None] = {}
        num_found = 0
        for model in file.models:
            network = build(model)
            found = found_branches(network, inputs(model))
            num_found += len(found)
            blocks.update(dict.fromkeys(type(block).__name__ for block, _ in found))
            wrong += [f"{model.name}: {problem}" for problem in differences(model, network, found)]
        none = "; ".join(dict.fromkeys(f"none: {model.none}" for model in file.models if model.none))
        names, expected = [model.name for model in file.models], sum(len(model.branches) for model in file.models)
        row = Row(
            file.library,
            file.file,
            names,
            list(blocks),
            expected,
            num_found,
            not wrong,
            None,
            "; ".join(wrong[:3]) or none,
            0.0,
        )
    gc.collect()
    return replace(row, seconds=round(time.perf_counter() - started, 1))


def check_contracts(file: ExpectedFile) -> tuple[list[str], float]:
    """Where a contract fails, empty if all models of the file hold them, and how many seconds it took."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    with_branches = [model for model in file.models if model.branches]
    broken = [f"{model.name}: {problem}" for model in with_branches for problem in problems(model)]
    gc.collect()
    return broken, time.perf_counter() - started


def problems(model: ExpectedModel) -> list[str]:
    """The contract that a model breaks, if any."""
    try:
        walk.check_contracts(subject(model), row_of_each_mode(number_of(model)))
    except Exception as error:  # whatever a network raises is its verdict
        return [f"{type(error).__name__}: {first_line(error)}"]
    return []


def _row_of_nothing(file: ExpectedFile, name: str, network: torch.nn.Module) -> Row:
    found = len(found_branches(network))
    return Row(file.library, file.file, [name], [], 0, found, found == 0, None, f"none: {file.none}", 0.0)


def held(row: Row) -> bool:
    """Branches as expected, and the contracts too where any are."""
    return row.passes and (row.contracts is True or row.expected == 0)


def write_page(record: dict) -> str:
    """The page in Markdown."""
    lines = [
        "# Coverage",
        "",
        "Residual branches found in the models of well-known libraries, against what reading their sources says",
        f"(`tests/zoo/expected`), and held to the contracts in float64. Made by `make coverage`{_duration(record)}.",
    ]
    for library in LIBRARIES:
        rows = [Row(**row) for row in record["rows"] if row["library"] == library]
        if reason := record["skipped"].get(library):
            lines += ["", f"## {library}", "", f"Skipped: {reason}."]
        if not rows:
            continue
        passing = sum(row.passes for row in rows)
        held = sum(row.contracts is True for row in rows)
        run = sum(row.contracts is not None for row in rows)
        version = record["library_versions"][library]
        lines += ["", f"## {library} {version}", ""]
        lines += [
            f"Branches as expected in {passing} of {len(rows)} files; contracts hold in {held} of {run} files run.",
            "",
        ]
        lines += ["| file | models | blocks with branches | expected | found | verdict |", "|---|---|---|--:|--:|---|"]
        for row in rows:
            models, blocks = ", ".join(dict.fromkeys(row.models)), ", ".join(row.blocks)
            lines.append(f"| {row.file} | {models} | {blocks} | {row.expected} | {row.found} | {verdict(row)} |")
    return "\n".join(lines) + "\n"


def _duration(record: dict) -> str:
    if record["run_again"]:
        return ""
    return f" in {record['minutes']:.0f} minutes on {record['environment']['cores']} cores"


def verdict(row: Row) -> str:
    if not row.passes or row.contracts is False:
        return f"fails: {row.reason}".replace("|", "/")
    if row.expected == 0:
        return "none expected"
    return "pass" if row.contracts else "branches pass; contracts not run here"


def contracts_of(files: dict[int, ExpectedFile]) -> Iterator[tuple[int, list[str], float]]:
    """What each file breaks and how long it took, as it is found.

    A crash inside a library takes its process along and all that was waiting for it: the rest goes on in one
    process, where the file that crashed is known.
    """
    left, workers = dict(files), os.cpu_count() or 1
    while left:
        with ProcessPoolExecutor(max_workers=workers) as pool:
            pending = {pool.submit(check_contracts, file): i for i, file in left.items()}
            try:
                for future in as_completed(pending):
                    found = future.result()
                    del left[pending[future]]
                    yield pending[future], *found
            except BrokenProcessPool:
                if workers == 1:
                    crashed = next(iter(left))
                    del left[crashed]
                    yield crashed, ["its process crashed"], 0.0
                workers = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failed", action="store_true", help="run again only what did not pass")
    again = parser.parse_args().failed
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    started = time.perf_counter()
    skipped = {library: reason for library in LIBRARIES if (reason := why_absent(library))}
    files = [file for library in LIBRARIES if library not in skipped for file in load_expected(library)]
    kept: list[Row] = []
    if again:
        rows_before = [Row(**row) for row in json.loads(RECORD.read_text())["rows"]]
        kept = [row for row in rows_before if held(row) and row.library not in skipped]
        done = {(row.library, row.file) for row in kept}
        files = [file for file in files if (file.library, file.file) not in done]
    rows: list[Row] = []
    with Progress() as progress:
        bar = progress.add_task("branches", total=len(files))
        with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
            for row in pool.map(check_file, files):
                rows.append(row)
                progress.update(bar, advance=1)
        slow_first = sorted((i for i, row in enumerate(rows) if row.expected), key=lambda i: -rows[i].seconds)
        bar = progress.add_task("contracts", total=len(slow_first))
        for i, broken, seconds in contracts_of({i: files[i] for i in slow_first}):
            reason = "; ".join([rows[i].reason, *broken[:3]]).strip("; ")
            seconds = round(rows[i].seconds + seconds, 1)
            rows[i] = replace(rows[i], contracts=not broken, reason=reason, seconds=seconds)
            progress.update(bar, advance=1)
    rows += kept
    known = open_files("branches") | open_files("contracts")
    for row in rows:
        if not held(row):
            why = known.get(name := f"{row.library}/{row.file}")
            print(f"{name}: {row.reason}" + (f" (open: {why})" if why else ""))
    rows.sort(key=lambda row: (LIBRARIES.index(row.library), row.file))
    record = {
        "command": "PYTHONPATH=tests python -m zoo.coverage",
        "environment": environment(torch.device("cpu")),
        "library_versions": {library: version_of(library) for library in LIBRARIES if library not in skipped},
        "skipped": skipped,
        "run_again": [f"{file.library}/{file.file}" for file in files] if again else [],
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "cpu_minutes": round(sum(getrusage(RUSAGE_CHILDREN)[:2]) / 60, 1),
        "rows": [asdict(row) for row in rows],
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(write_page(record))
    for library, reason in skipped.items():
        print(f"skipped {library}: {reason}")
    print(f"branches as expected in {sum(row.passes for row in rows)} of {len(rows)} files")
    sys.exit(0 if all(held(row) or f"{row.library}/{row.file}" in known for row in rows) else 1)


if __name__ == "__main__":
    main()
