"""Commands outlive whoever reads what they print, and print in any locale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = "--depth 8 --width 2 --train-size 64 --batch-size 32 --epochs 2 --device cpu --threads 1".split()
PRINTS = "import sys; from residualdroppath.cli.streams import outlive_readers; outlive_readers(); "


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


def unread(*words: str, stderr: bool = True) -> tuple[int, str]:
    """The exit code of a process whose output nobody reads, and what it prints on stderr where that is read."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            words, stdout=writing, stderr=writing if stderr else subprocess.PIPE, env=environment(), timeout=300
        )
    finally:
        os.close(writing)
    return done.returncode, "" if stderr else done.stderr.decode()


def test_training_outlives_its_readers_and_notes_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, _ = unread(sys.executable, "-m", "residualdroppath", "train", *TINY, "--out", str(out))
    assert code == 0 and (out / "result.json").is_file()
    notes = (out / "log.txt").read_text().splitlines()
    assert len(notes) == 1 and notes[0].endswith("nobody reads <stderr> any more; the command goes on without it")


def test_the_other_stream_says_so_once() -> None:
    code, error = unread(
        sys.executable, "-c", PRINTS + "[print('x' * 9999, flush=True) for _ in range(9)]", stderr=False
    )
    assert code == 0
    assert error == "nobody reads <stdout> any more; the command goes on without it\n"


def test_buffered_output_is_dropped_at_the_end_too() -> None:
    code, error = unread(sys.executable, "-c", PRINTS + "print('x')", stderr=False)
    assert code == 0 and "Traceback" not in error and "Exception" not in error


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_locale_prints(encoding: str) -> None:
    code = PRINTS + "print('± … −'); print('± … −', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, env=environment(PYTHONIOENCODING=encoding)
    )
    expected = "± … −\n".encode(encoding, "replace")
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, expected)


def test_a_run_in_a_locale_without_utf_8_is_that_of_any_other(tmp_path: Path) -> None:
    """Texts of files are UTF-8 wherever they are written and read."""
    out = tmp_path / "run"
    words = [*TINY, "--label-column", "größe", "--out", str(out)]
    ascii_alone = environment(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0", PYTHONWARNDEFAULTENCODING="1")
    for again in ([], ["--resume"]):
        done = subprocess.run(
            [sys.executable, "-m", "residualdroppath", "train", *words, *again],
            capture_output=True, timeout=300, env=ascii_alone,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        warned = [line for line in done.stderr.splitlines() if b"EncodingWarning" in line]
        assert not [line for line in warned if b"/residualdroppath/" in line]
    assert "größe" in (out / "index.html").read_text(encoding="utf-8")


def test_warnings_of_the_package_are_one_line(tmp_path: Path) -> None:
    code = """
import sys, warnings
from residualdroppath.cli import streams
streams.shorten_warnings()
warnings.warn_explicit("higher rates", UserWarning, streams.__file__, 1)
warnings.warn_explicit("of others", UserWarning, "other.py", 2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stderr.splitlines() == ["warning: higher rates", "other.py:2: UserWarning: of others"]
