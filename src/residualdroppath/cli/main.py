"""Commands of `rdp`, and how their errors look. What a command needs is imported when it is run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..errors import Stopped, UserError, did_you_mean, first_line, is_out_of_memory
from ..records.paths import expanded
from .streams import outlive_readers, output_was_lost, shorten_warnings


@dataclass(frozen=True)
class Command:
    """`kept`: what an interrupted one leaves, if it can be resumed, and `again` how."""

    heading: str
    summary: str
    kept: str | None = None
    again: str = "add --resume to go on"


TRAINING, TRAINED, NETWORKS, SET_UP = "train and compare", "use a trained network", "look into networks", "set up"
COMMANDS = {
    "train": Command(
        TRAINING, "train a network by one method: plain, drop_path or residual_drop_path", "whole epochs are kept"
    ),
    "compare": Command(
        TRAINING, "train by several methods over several seeds, and print a table", "whole epochs are kept"
    ),
    "study": Command(
        TRAINING,
        "answer a question over variants and seeds: in parallel, tuned alike, no run made twice",
        "whole epochs are kept",
        "run the same command to go on",
    ),
    "runs": Command(TRAINING, "list the runs under a folder: method, data, epoch, accuracies, whether they go on"),
    "report": Command(TRAINING, "put several runs side by side: a table, and curves over epochs and over time"),
    "eval": Command(TRAINED, "evaluate it: loss, top-1, top-5, accuracy by class, confusion matrix"),
    "predict": Command(TRAINED, "write the classes of a folder of images as CSV"),
    "export": Command(TRAINED, "write it, or a pruned copy, as ONNX, torch.export or safetensors"),
    "branches": Command(
        NETWORKS, "show the residual branches of any timm, torchvision or Hugging Face network, and what they cost"
    ),
    "bench": Command(NETWORKS, "time an iteration beside plain training, drop path, and the least that it could take"),
    "analyze": Command(
        NETWORKS, "measure and draw what the layers and branches of any residual network do, alone or beside another"
    ),
    "spiral": Command(
        NETWORKS,
        "draw and measure every unit of a deep, narrow network on a spiral, trained by each method",
        "finished networks are kept",
    ),
    "doctor": Command(SET_UP, "show versions, devices, threads, and what is missing, with the line that gets it"),
}


def _usage() -> str:
    text = "usage: rdp COMMAND [options]      (rdp COMMAND --help, or rdp help COMMAND, lists them)\n"
    for heading in dict.fromkeys(command.heading for command in COMMANDS.values()):
        own = [f"  {name:<8}  {each.summary}" for name, each in COMMANDS.items() if each.heading == heading]
        text += f"\n{heading}:\n" + "\n".join(own) + "\n"
    return text + (
        "  --version                      print the version\n"
        "  --print-completion bash|zsh    print a script that completes commands and options in a shell"
    )


USAGE = _usage()
_signals: list[int] = []  # that came outside of a training


def main() -> None:
    """Entry point.

    Exit codes: 0 done, 1 a mistake that the message explains, 2 wrong usage, 130 interrupted, 128 + N: a training
    that signal N ended, all saved (143: SIGTERM, 138: SIGUSR1).
    """
    for name in ("SIGTERM", "SIGUSR1"):  # a training has handlers of its own
        if number := getattr(signal, name, None):
            signal.signal(number, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in the background of a script
        signal.signal(signal.SIGINT, _interrupt)
    outlive_readers()
    shorten_warnings()
    code = run(sys.argv[1:])
    sys.exit(code or int(output_was_lost()))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code."""
    try:
        name, *rest = [expand_user(argument) for argument in arguments] or [""]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if name == "help" and rest:
        name, rest = rest[0], ["--help"]
    if name in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if name == "--version":
        print(version())
        return 0
    if name not in COMMANDS and name != "--print-completion":
        if name:
            print(f"error: no command {name!r}{did_you_mean(name, COMMANDS)}", file=sys.stderr)
        print(USAGE, file=sys.stderr)
        return 2
    if name != "train" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        print(f"error: launchers of several processes are for `train`, got {name!r}", file=sys.stderr)
        return 2
    try:
        try:
            command_function(name)(rest)
        except Exception as error:
            if _signals and not isinstance(error, Stopped):
                return _interrupted(name)  # a library caught the interruption, and made an error of its own of it
            raise
    except ModuleNotFoundError as error:
        print(f"error: {_missing(error, name)}", file=sys.stderr)
        return 1
    except (UserError, OSError) as error:  # a full disk or a folder one may not write to explains itself
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(
            f"error: out of memory ({first_line(error)}); choose a smaller `batch_size`, `image_size` or network.",
            file=sys.stderr,
        )
        return 1
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        return _interrupted(name)
    return 0


def _interrupted(name: str) -> int:
    """Says what is kept, and returns the exit code."""
    command = COMMANDS.get(name, Command("", ""))
    again = f"{command.kept}; {command.again}" if command.kept else "run it again"
    print(f"interrupted: {again}", file=sys.stderr)
    return 130


def command_function(name: str) -> Callable[[list[str]], None]:
    """The function of a command: that of its name, in the module of its name."""
    if name == "--print-completion":
        return import_module(".completion", __package__).print_completion
    return getattr(import_module(f".{name}", __package__), name)


def _missing(error: ModuleNotFoundError, command: str) -> str:
    """One line on a package that is not installed; raises `error` again if it is none of the optional ones."""
    from ..records.extras import extra_of, pip_line

    package = (error.name or "").partition(".")[0]
    if (extra := extra_of(package)) is None:
        raise error
    needs = f"`rdp {command}` needs" if command in COMMANDS else f"`{command}` needs"
    return f"{needs} {package}, which is not installed: {pip_line(extra)}."


def expand_user(argument: str) -> str:
    """`~` at the start of an argument or of the value of an option, where no shell replaces it, as in `--out=~/x`."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + equals + (str(expanded(value)) if value.startswith("~") else value)


def version() -> str:
    """Our version, and those that figures depend on most."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    from .. import __version__

    try:
        torch = f"torch {version_of('torch')}"
    except PackageNotFoundError:
        torch = "no torch"
    return f"residualdroppath {__version__} ({torch}, Python {platform.python_version()})"


def _interrupt(number: int, frame: Any) -> None:
    _signals.append(number)
    raise KeyboardInterrupt
