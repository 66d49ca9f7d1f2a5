"""What the command line imports before it is needed: nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "scipy", "sklearn", "matplotlib", "timm", "torchvision", "PIL", "pyarrow")
COMMANDS = (
    "train", "compare", "study", "bench", "spiral", "analyze", "eval", "predict", "export", "runs", "report", "doctor",
)  # fmt: skip
# All of them at once, in one process: what one imports the next one finds.
ANSWERS = """
import sys
from residualdroppath.cli.main import run
heavy = sys.argv[1].split()
for line in sys.argv[2:]:
    try:
        code = run(line.split())
    except SystemExit as stop:
        code = stop.code
    found = [name for name in heavy if name in sys.modules]
    print("CODE", line, "|", code, "|", *found)
"""


def answers(*lines: str, heavy: tuple[str, ...] = HEAVY) -> list[list[str]]:
    """Of each command line: itself, its exit code, and which of `heavy` have been imported by then."""
    words = [sys.executable, "-c", ANSWERS, " ".join(heavy), *lines]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = [line.removeprefix("CODE ") for line in done.stdout.splitlines() if line.startswith("CODE ")]
    return [[part.strip() for part in line.split("|")] for line in found]


def test_help_version_and_typos_import_nothing_heavy() -> None:
    lines = {"--help": 0, "--version": 0, "help": 0, "trian": 2, "help trian": 2, "--hlep": 2}
    expected = [[line, str(code), ""] for line, code in lines.items()]
    assert answers(*lines, heavy=(*HEAVY, "pydantic", "tyro", "yaml", "rich")) == expected


def test_help_and_mistakes_of_a_command_import_nothing_heavy() -> None:
    lines = [f"{command} --help" for command in COMMANDS]
    assert answers(*lines, "train --epochs 0") == [*([line, "0", ""] for line in lines), ["train --epochs 0", "1", ""]]


def test_training_imports_what_draws_and_counts_only_when_it_needs_them() -> None:
    code = (
        "import sys, residualdroppath.training.trainer, residualdroppath.training.run_page;"
        "print(*({'scipy', 'sklearn', 'matplotlib'} & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", ["ResidualDropPath", "Options", "prune", "register_block"])
def test_names_of_the_package_are_imported_when_used(name: str) -> None:
    import residualdroppath

    assert name in dir(residualdroppath) and getattr(residualdroppath, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'residual'"):
        _ = residualdroppath.residual  # pyright: ignore[reportAttributeAccessIssue]
