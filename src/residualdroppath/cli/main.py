"""Commands of `rdp`, and how their errors look."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import Stopped, UserError
from .analyze import analyze
from .bench import bench
from .branches import branches
from .compare import compare
from .spiral import spiral
from .study import study
from .train import train


@dataclass(frozen=True)
class Command:
    """`kept`: what an interrupted one leaves, if it can be resumed, and `again` how."""

    run: Callable[[list[str]], None]
    summary: str
    kept: str | None = None
    again: str = "add --resume to go on"


COMMANDS = {
    "train": Command(
        train, "train a network by one method: plain, drop_path or residual_drop_path", "whole epochs are kept"
    ),
    "compare": Command(
        compare, "train by several methods over several seeds, and print a table", "whole epochs are kept"
    ),
    "study": Command(
        study,
        "answer a question over variants and seeds: in parallel, tuned alike, no run made twice",
        "whole epochs are kept",
        "run the same command to go on",
    ),
    "branches": Command(
        branches,
        "show the residual branches of any timm, torchvision or Hugging Face network, and what they cost",
    ),
    "bench": Command(bench, "time an iteration beside plain training, drop path, and the least that it could take"),
    "spiral": Command(
        spiral,
        "draw and measure every unit of a deep, narrow network on a spiral, trained by each method",
        "finished networks are kept",
    ),
    "analyze": Command(
        analyze,
        "measure and draw what the layers and branches of any residual network do, alone or beside another",
    ),
}
USAGE = "usage: rdp COMMAND [options]      (rdp COMMAND --help lists them)\n\n" + "\n".join(
    f"  {name:<8}  {command.summary}" for name, command in COMMANDS.items()
)


def main() -> None:
    """Entry point.

    Exit codes: 0 done, 1 a mistake that the message explains, 2 wrong usage, 130 interrupted, 128 + N: a training
    that signal N ended, all saved (143: SIGTERM, 138: SIGUSR1).
    """
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code."""
    if not arguments or arguments[0] not in COMMANDS:
        asked_help = bool(arguments) and arguments[0] in ("-h", "--help")
        if arguments and not asked_help:
            print(f"error: no command {arguments[0]!r}", file=sys.stderr)
        print(USAGE, file=sys.stdout if asked_help else sys.stderr)
        return 0 if asked_help else 2
    if arguments[0] != "train" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        print(f"error: launchers of several processes are for `train`, got {arguments[0]!r}", file=sys.stderr)
        return 2
    command = COMMANDS[arguments[0]]
    try:
        command.run(arguments[1:])
    except (UserError, OSError) as error:  # a full disk or a folder one may not write to explains itself
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        again = f"{command.kept}; {command.again}" if command.kept else "run it again"
        print(f"interrupted: {again}", file=sys.stderr)
        return 130
    return 0


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
