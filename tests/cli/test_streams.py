"""Commands outlive whoever reads what they print, and print in any locale."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(params=["a full disk", "a terminal that is gone"])
def unwritable(request: pytest.FixtureRequest) -> Iterator[int]:
    if request.param == "a full disk":
        number = os.open("/dev/full", os.O_WRONLY)
    else:
        other, number = os.openpty()
        os.close(other)
    yield number
    os.close(number)


@pytest.mark.skipif(sys.platform != "linux", reason="a device that is always full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_cannot_be_written_is_left_out(unwritable: int, stream: str) -> None:
    code = PRINTS + f"[print('x', file=sys.{stream}, flush=True) for _ in range(9)]; print('y', file=sys.{stream})"
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: unwritable}
    done = subprocess.run([sys.executable, "-c", code], **given, text=True, env=environment(), timeout=60)
    assert done.returncode == 0 and not done.stdout
    if stream == "stdout":
        assert done.stderr.startswith("<stdout> cannot be written to (") and done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="a device that is always full")
def test_a_command_whose_output_is_lost_has_failed(unwritable: int) -> None:
    """It may be all that was asked for: `rdp runs --json > FILE`."""
    command = [sys.executable, "-m", "residualdroppath", "--version"]
    done = subprocess.run(command, stdout=unwritable, stderr=subprocess.PIPE, text=True, env=environment(), timeout=60)
    assert done.returncode == 1 and "<stdout> cannot be written to (" in done.stderr


def test_streams_that_are_closed_lead_nowhere(tmp_path: Path) -> None:
    """No file gets their numbers, to which libraries print."""
    code = PRINTS + f"file = open({str(tmp_path / 'file')!r}, 'w'); sys.exit(file.fileno()); "
    command = ["sh", "-c", 'exec "$0" "$@" >&- 2>&-', sys.executable, "-c", code + "print(sys.stdout.isatty())"]
    assert subprocess.run(command, env=environment(), timeout=60).returncode > 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_locale_prints(encoding: str) -> None:
    code = PRINTS + "print('± … −'); print('± … −', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, env=environment(PYTHONIOENCODING=encoding)
    )
    expected = "± … −\n".encode(encoding, "replace")
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, expected)


@pytest.mark.full
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
