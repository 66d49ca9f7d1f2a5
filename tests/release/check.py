"""`python -m tests.release.check`: the built wheel in a new environment, with torch alone and then with each extra.

Before an extra is there, what needs it must fail with one line that names it; afterwards it must work.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "residualdroppath"
TINY = "--data digits --depth 8 --width 2 --epochs 1 --train-size 64 --batch-size 32 --device cpu --method plain"
TWO_LINES = """
import torch, residualdroppath
from torch import nn
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    def forward(self, x):
        return x + self.f(x)
model = nn.Sequential(*(Block() for _ in range(4)), nn.Linear(4, 2))
rdp = residualdroppath.ResidualDropPath(model, drop_path_rate=0.5)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
kinds = []
for _ in range(4):
    kinds.append(rdp.kind)
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    rdp.step()
assert kinds == ["drop_path", "dropped_part"] * 2, kinds
print(len(rdp.branches), residualdroppath.__version__)
"""


@dataclass(frozen=True)
class Check:
    """What an extra adds: words after `python` that work with it and, without it, name it in an error."""

    extra: str
    words: tuple[str, ...]
    prints: str = ""


def _rdp(words: str) -> tuple[str, ...]:
    return ("-m", PACKAGE, *words.split())


# In this order, each with those before it: all but the first are of use with the command line alone.
EXTRAS = (
    Check("train", _rdp(f"train {TINY} --out run"), "run/index.html"),
    Check("transformers", _rdp("branches transformers/BertModel"), "attention"),
    Check("tensorboard", _rdp(f"train {TINY} --log tensorboard --out logged"), "logged/index.html"),
    Check("wandb", _rdp(f"train {TINY} --log wandb --out traced"), "traced/index.html"),
    Check("export", _rdp("export run --format onnx --out run.onnx"), "run.onnx"),
    # Sets that are not there: with the extra it is the name that is wrong.
    Check("hfds", _rdp("train --data hfds/nothing --out a")),
    Check("tfds", _rdp("train --data tfds/nothing --out b")),
    Check("ray", _rdp("study study.yaml --engine ray --out study")),
)
STUDY = """
name: tiny
question: Does it run?
base: {data: digits, depth: 8, width: 2, epochs: 1, train_size: 64, batch_size: 32}
seeds: 1
variants: {plain: {method: plain}}
"""


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout, made from a copy: files of earlier builds would be taken up, and new ones left."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, temporary)
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / "src", Path(temporary) / "src", ignore=ignored)
        words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), temporary]
        subprocess.run(words, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def wrong_contents(wheel: Path) -> Iterator[str]:
    """What the wheel lacks or should not have."""
    source = ROOT / "src"
    wanted = {
        str(path.relative_to(source))
        for pattern in ("*.py", "*.html", "py.typed")
        for path in (source / PACKAGE).rglob(pattern)
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    yield from (f"{name} is not in the wheel" for name in sorted(wanted - held))
    yield from (f"{name} is in the wheel" for name in sorted(held - wanted))


def run(python: Path, words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """In a folder of its own, with nothing of this checkout to be imported."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"PYTHONNOUSERSITE": "1", "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([python, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=900)


def wrong_alone(python: Path, folder: Path) -> Iterator[str]:
    """What does not work with torch alone."""
    works = {
        "import": ("-c", TWO_LINES),
        "--version": _rdp("--version"),
        "--help": _rdp("--help"),
        "doctor": _rdp("doctor"),
    }
    for name, words in works.items():
        if (done := run(python, words, folder)).returncode:
            yield f"{name}: {done.stderr.strip()}"
    fails = {
        "--print-completion": _rdp("--print-completion bash"),
        "analysis": ("-c", "import residualdroppath.analysis as analysis; analysis.reuse"),
    }
    for name, words in fails.items():
        done = run(python, words, folder)
        if not done.returncode or f"pip install '{PACKAGE}[train]'" not in (done.stderr.splitlines() or [""])[-1]:
            yield f"{name} does not name the extra `train`: {done.stderr.strip()}"


def wrong_without(check: Check, python: Path, folder: Path) -> str | None:
    """What is wrong with the error where the extra is missing; None if it is one line that names it."""
    done = run(python, check.words, folder)
    lines = done.stderr.splitlines()
    if done.returncode == 1 and len(lines) == 1 and f"pip install '{PACKAGE}[{check.extra}]'" in lines[0]:
        return None
    return f"without {check.extra}: exit code {done.returncode}, {done.stderr.strip() or done.stdout.strip()}"


def wrong_with(check: Check, python: Path, folder: Path) -> str | None:
    """What is wrong where the extra is there."""
    done = run(python, check.words, folder)
    if check.prints:
        works = not done.returncode and check.prints in done.stdout
    else:
        works = f"[{check.extra}]" not in done.stderr and "Traceback" not in done.stderr
    return None if works else f"with {check.extra}: exit code {done.returncode}, {done.stderr.strip()}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.release.check", description=__doc__)
    known = [check.extra for check in EXTRAS]
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help=f"default: {' '.join(known)}")
    given = parser.parse_args(arguments)
    if unknown := [extra for extra in given.extras if extra not in known]:
        parser.error(f"EXTRA must be of {', '.join(known)}, got {unknown[0]}")
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = build_wheel(folder)
        problems += wrong_contents(wheel)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        python = folder / "venv" / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
        subprocess.run([*install, wheel], check=True)
        (work := folder / "work").mkdir()
        (work / "study.yaml").write_text(STUDY)
        problems += wrong_alone(python, work)
        _report("torch alone", problems)
        for check in EXTRAS:
            if given.extras and check.extra not in given.extras:
                continue
            found = [wrong_without(check, python, work)]
            subprocess.run([*install, f"{wheel}[{check.extra}]"], check=True)
            found.append(wrong_with(check, python, work))
            _report(check.extra, new := [problem for problem in found if problem])
            problems += new
    return 1 if problems else 0


def _report(what: str, problems: Sequence[str]) -> None:
    print(f"{what:<14}  {'works' if not problems else 'FAILED'}", *problems, sep="\n    ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
