"""Every message on the page of troubleshooting is one of the source, and messages that a user may meet are on it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "residualdroppath"
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
SECTIONS = dict(re.findall(r"^### (.*)\n\n([^#]*)", PAGE, re.MULTILINE))
OTHERS = "PyTorch's."  # how a section begins whose message comes from elsewhere
# The files whose errors and warnings a user of the two lines meets.
SHOWN = [
    "options.py", "residual_drop_path.py", "drop_path.py", "branch.py", "planning/rates.py", "planning/plan_options.py",
    "planning/cycles.py", "freezing/usage_warnings.py", "freezing/optimizer_guard.py", "discovery/own_drop_path.py",
    "running/reentrant_checkpoints.py", "running/block_forward.py", "running/traced_calls.py",
]  # fmt: skip
# They name the argument, what is allowed, and what was given, and nothing more is to be said.
PLAIN = re.compile(
    r"^`[\w\[\]'.{}]+` must (be|map|hold|return|come|have)|^Pass either `options`|^`add` was called with"
)


def texts(node: ast.AST) -> Iterator[str]:
    """The texts in an expression, `{}` for values that are put in; parts next to each other are one."""
    for found in ast.walk(node):
        if isinstance(found, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in found.values)  # pyright: ignore
        elif isinstance(found, ast.Constant) and isinstance(found.value, str):
            yield found.value


def messages(path: Path) -> list[str]:
    """What errors raised and warnings given in a file say."""
    given = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("warnings.warn", "self._warn"):
            given += [max(texts(node), key=len, default="")]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            given += [max(texts(node.exc), key=len, default="")]
    return [text for text in given if " " in text]


ALL_TEXTS = [text for path in (SOURCE / "core").rglob("*.py") for text in texts(ast.parse(path.read_text()))]


@pytest.mark.parametrize("heading", [name for name, text in SECTIONS.items() if not text.startswith(OTHERS)])
def test_messages_of_the_page_are_in_the_source(heading: str):
    assert any(heading in text for text in ALL_TEXTS), heading


@pytest.mark.parametrize("file", SHOWN)
def test_messages_of_the_source_are_on_the_page(file: str):
    missing = [
        text
        for text in messages(SOURCE / "core" / file)
        if not PLAIN.search(text) and not any(heading in text for heading in SECTIONS)
    ]
    assert not missing


def test_messages_are_found():
    assert sum(len(messages(SOURCE / "core" / file)) for file in SHOWN) >= 30
