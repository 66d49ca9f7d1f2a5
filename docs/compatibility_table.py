"""The tables of docs/compatibility.md, from the record in `results/compatibility/`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from cost_page import markdown_table

RECORD = Path(__file__).parents[1] / "results" / "compatibility" / "core.json"


def compatibility_tables() -> dict[str, str]:
    """Markdown by the name of its marker."""
    record = json.loads(RECORD.read_text())
    return {"table compatibility": matrix(record), "failures": failures(record)}


def matrix(record: dict[str, Any]) -> str:
    """A row for each version of torch, a column for each version of Python."""
    rows = [
        [torch, *(cell(record["cells"].get(f"{python}:{torch}")) for python in record["pythons"])]
        for torch in record["torches"]
    ]
    table = markdown_table(["torch", *(f"Python {python}" for python in record["pythons"])], rows)
    builds = sorted({found["torch"] for found in record["cells"].values() if "torch" in found})
    return f"{table}\n\nBuilds: {', '.join(builds)}; on a CPU. With {', '.join(record['packages'])}."


def cell(found: dict[str, Any] | None) -> str:
    """What is shown of a cell of the matrix; None: it was never run."""
    if found is None:
        return "not run"
    if found["state"] == "not installed":
        return "could not be installed"
    if found["missing"]:
        return f"**lacks {', '.join(f'`{name}`' for name in found['missing'])}**"
    if "passed" not in found:
        return f"**{found['failures'][0]}**"
    counts = [f"{found['passed']} passed"]
    if found["skipped"]:
        counts.append(f"{found['skipped']} skipped")
    if found["failures"]:
        counts.append(f"**{len(found['failures'])} failed**")
    return ", ".join(counts)


def failures(record: dict[str, Any]) -> str:
    """A line for each test that fails somewhere: where, and in how many cases; and for what could not be installed."""
    where: dict[str, list[str]] = {}
    for name, found in record["cells"].items():
        label = "Python {}, torch {}".format(*name.split(":"))
        if "reason" in found:
            where.setdefault(found["reason"], []).append(label)
            continue
        cases = Counter(test.partition("[")[0].removeprefix("tests.core.") for test in found["failures"])
        for test, count in cases.items():
            where.setdefault(f"`{test}`", []).append(f"{label} ({count})")
    return "\n".join(f"- {reason}: {'; '.join(labels)}" for reason, labels in where.items()) or "No test fails."
