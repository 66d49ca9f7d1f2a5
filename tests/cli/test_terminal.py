"""What commands print with where there is no terminal."""

from __future__ import annotations

import sys

import pytest
from rich.progress import TimeRemainingColumn

from residualdroppath.cli.terminal import bar_for_each, table_console


def test_tables_have_their_width_and_brackets_stay(capsys: pytest.CaptureFixture[str]) -> None:
    console = table_console(130)
    console.print("[red] " + "word " * 30)
    lines = capsys.readouterr().out.splitlines()
    assert console.width == 130 and lines[0].startswith("[red] word") and len(lines) == 2


def test_output_that_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    console = table_console(130)
    console.print("nowhere")
    assert console.width == 130


def test_each_name_has_a_bar_that_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    with bar_for_each(TimeRemainingColumn()) as on_progress:
        on_progress("measuring", 0, 3)
        on_progress("drawing", 1, 2)
        on_progress("measuring", 3, 3)
    assert capsys.readouterr().out == ""
