"""What the documentation shows runs: Python from top to bottom of a page, commands as far as their options exist."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from residualdroppath.cli import main

from .snippets import Page, require_output, run_page

ROOT = Path(__file__).parents[2]
PAGES = [Page(path) for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]]
COMMANDS = {" ".join(words): words for page in PAGES for words in page.commands()}


class Parsed(Exception):
    """The options were understood."""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    yield
    torch.set_rng_state(state)
    torch.set_default_dtype(dtype)


def name_of(page: Page) -> str:
    return str(page.path.relative_to(ROOT))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=[pytest.mark.full] if page.is_slow() else [])
        for page in PAGES
        if page.has_code()
    ],
)
def test_the_code_of_a_page_runs(page: Page, tmp_path: Path):
    if missing := [name for name in page.needs() if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    run_page(page, tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist_with_their_options(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = COMMANDS[command]
    if "--config" in words:
        (tmp_path / words[words.index("--config") + 1]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / words[words.index("--config") + 1]).write_text("{}")
    if words[0] in ("help", "doctor") or words[0].startswith("-"):
        assert ended(words) == 0
        return
    parse = tyro.cli

    def parse_alone(*args: Any, **kwargs: Any) -> None:
        parse(*args, **kwargs)
        raise Parsed

    monkeypatch.setattr(tyro, "cli", parse_alone)
    with pytest.raises(Parsed):
        raise AssertionError(f"`rdp {command}` ended with {ended(words)}")


def ended(words: list[str]) -> object:
    try:
        return main.run(words)
    except SystemExit as stopped:
        return stopped.code or 0


def test_commands_are_found():
    assert len(COMMANDS) >= 20


def page_of(text: str, folder: Path) -> Page:
    path = folder / "page.md"
    path.write_text(text)
    return Page(path)


def test_a_page_has_one_namespace_and_its_comments_count(tmp_path: Path):
    page = page_of(
        "<!-- needs: a, b -->\n<!-- slow -->\n<!-- run first\nstart = 1\n-->\n```python\nprint(start + 1)\n```\n"
        "<!-- output -->\n```text\n2\n```\n<!-- not run: no network -->\n```python\n1 / 0\n```\n"
        "```sh\nrdp train \\\n  --epochs 2  # twice\ntorchrun -m residualdroppath eval x > y\nls rdp\n```\n",
        tmp_path,
    )
    assert page.needs() == ["a", "b"] and page.is_slow() and page.has_code()
    assert list(page.commands()) == [["train", "--epochs", "2"], ["eval", "x"]]
    assert [block.language for block in page.blocks] == ["python", "python", "text", "python", "sh"]
    run_page(page, tmp_path)


def test_errors_give_page_and_line(tmp_path: Path):
    page = page_of("# Title\n\n```python\none = 1\n1 / 0\n```\n", tmp_path)
    with pytest.raises(ZeroDivisionError) as raised:
        run_page(page, tmp_path)
    assert raised.traceback[-1].path == page.path and raised.traceback[-1].lineno + 1 == 5


def test_another_output_is_an_error(tmp_path: Path):
    page = page_of("```python\nprint(1)\n```\n<!-- output -->\n```text\n2\n```\n", tmp_path)
    with pytest.raises(AssertionError, match="page.md:6 shows"):
        run_page(page, tmp_path)


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a ...  c\n", "a b\nb c\n", True),
        ("loss 0.512 at 3", "loss 0.520 at 3", True),
        ("loss 0.512 at 3", "loss 0.612 at 3", False),
        ("loss 0.512 at 3", "loss 0.512 at 4", False),
        ("1 of 2.", "1 of 2?", False),
    ],
)
def test_outputs_may_differ_by_rounding(expected: str, printed: str, same: bool):
    if same:
        require_output(expected, printed, "page.md:1")
    else:
        with pytest.raises(AssertionError, match="page.md:1 shows"):
            require_output(expected, printed, "page.md:1")


def test_marked_commands_are_run(tmp_path: Path):
    page = page_of("<!-- run -->\n```sh\npython -c 'print(1)'\n```\n<!-- output -->\n```text\n1\n```\n", tmp_path)
    run_page(page, tmp_path)
    with pytest.raises(AssertionError, match="ended with 3"):
        run_page(page_of("<!-- run -->\n```console\n$ python -c 'exit(3)'\n```\n", tmp_path), tmp_path)
