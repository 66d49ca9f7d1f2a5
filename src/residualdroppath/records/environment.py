"""Where a figure comes from: versions, device, commit and command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("residualdroppath", "torch", "torchvision", "timm", "transformers", "numpy", "scikit-learn")


def environment(device: torch.device) -> dict[str, Any]:
    """What a record needs next to its configuration to be repeated or doubted."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def peak_memory() -> int:
    """The largest memory that the process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the package's own checkout, `+` added where files differ from it; None outside one."""
    folder = Path(__file__).parents[1]

    def git(*words: str) -> str:
        words = ("git", *words)
        done = subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8", timeout=10, check=True)
        return done.stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):
            return None  # installed inside a checkout of something else
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
