"""The matrix of versions: how it is made, and that pyproject.toml allows what it holds and no more."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from compatibility import run
from compatibility.private_names import missing_names, names_of_torch
from residualdroppath.records.extras import as_requirement, in_range

ROOT = Path(__file__).parents[1]
RECORD = json.loads(run.RECORD.read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
(TORCH,) = map(as_requirement, PROJECT["dependencies"])


def numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def test_names_of_torch_are_read_and_missing_ones_found() -> None:
    source = "import torch\nfrom torch.nn.modules.conv import _ConvNd, _Gone\ntorch._disable_dynamo(torch._gone.x.y)"
    assert names_of_torch(source) == [
        "torch.nn.modules.conv._ConvNd", "torch.nn.modules.conv._Gone", "torch._disable_dynamo", "torch._gone.x.y",
        "torch._gone.x", "torch._gone",
    ]  # fmt: skip
    assert missing_names(source) == [
        "torch.nn.modules.conv._Gone", "torch._gone.x.y", "torch._gone.x", "torch._gone",
    ]  # fmt: skip
    assert missing_names(run.INTERNALS.read_text()) == []


def test_a_report_is_counted() -> None:
    report = """<testsuites><testsuite>
    <testcase classname="tests.a" name="one"/><testcase classname="tests.a" name="two"><failure>x</failure></testcase>
    <testcase classname="b" name="three"><skipped/></testcase><testcase classname="b" name="four"><error/></testcase>
    </testsuite></testsuites>"""
    assert run.counts(report) == {"passed": 1, "skipped": 1, "failures": ["b::four", "tests.a::two"]}


def test_a_cell_in_one_line() -> None:
    found = {"state": "failed", "missing": [], "passed": 3, "skipped": 1, "failures": ["a::b"]}
    assert run.line_of(("3.11", "2.6.0"), found) == "Python 3.11, torch 2.6.0: 3 passed, 1 skipped, 1 failed"
    assert "\033[31m" in run.line_of(("3.11", "9"), {**found, "missing": ["torch._gone"]})
    absent = {"state": "not installed", "reason": "no Python 3.99 on this machine"}
    assert run.line_of(("3.99", "9"), absent).endswith("not installed: no Python 3.99 on this machine")


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    assert run.result_of(("3.99", "2.6.0"), tmp_path, [])["reason"] == "no Python 3.99 on this machine"


@pytest.mark.parametrize("text", ["3.11", "3.11:", ":2.6.0"])
def test_what_is_no_cell_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be PYTHON:TORCH"):
        run.as_cell(text)


def test_each_version_allowed_at_an_end_was_tested() -> None:
    """The bounds of torch are the oldest version and the minor version after the newest that passed."""
    passed = [found["torch"].partition("+")[0] for found in RECORD["cells"].values() if found["state"] == "passed"]
    oldest, newest = min(passed, key=numbers), max(passed, key=numbers)
    major, minor, *_ = numbers(newest)
    assert sorted(TORCH.range.split(",")) == [f"<{major}.{minor + 1}", f">={oldest.removesuffix('.0')}"]
    assert all(in_range(version, TORCH.range) for version in passed)


def test_each_python_listed_was_tested() -> None:
    passed = {cell.partition(":")[0] for cell, found in RECORD["cells"].items() if found["state"] == "passed"}
    prefix = "Programming Language :: Python :: 3."
    listed = {line.removeprefix(prefix[:-2]) for line in PROJECT["classifiers"] if line.startswith(prefix)}
    assert listed == passed and PROJECT["requires-python"] == f">={min(passed, key=numbers)}"
