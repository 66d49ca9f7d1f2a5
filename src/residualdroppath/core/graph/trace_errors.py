"""Errors of tracing, which runs foreign code on stand-ins: those of the forward are told from ours, in words."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..forward_override import forward_beneath
from ..torch_internals import ReentrantCheckpoint
from .traced_value import CannotFollow

REENTRANT = "it is checkpointed by the reentrant kind; use `checkpoint(..., use_reentrant=False)`"


class UntraceableError(Exception):
    """The forward of a module cannot be written as a graph; the message says why."""


def refuse_foreign_forward(module: nn.Module) -> None:
    """Raise `UntraceableError` where somebody has set a forward on the module."""
    if (foreign := forward_beneath(module)) is not None:
        title = getattr(foreign, "__qualname__", type(foreign).__name__)
        raise UntraceableError(f"somebody has set a forward on it ({title}), which a graph would leave out")


@contextmanager
def errors_of_the_forward() -> Iterator[None]:
    """Whatever a forward raises on stand-ins is an `UntraceableError`, with our reason and the line."""
    try:
        yield
    except Exception as error:  # tracing runs foreign code on stand-ins, and so raises anything
        if isinstance(error, UntraceableError):
            raise
        if _came_through_reentrant_checkpoint(error):
            reason = REENTRANT
        elif is_our_own(error):
            raise
        elif isinstance(error, CannotFollow):
            reason = str(error)
        else:
            first = str(error).splitlines()[0] if str(error) else ""
            reason = f"it raises {type(error).__name__} while it is traced{': ' if first else ''}{first}"
        raise UntraceableError(f"{reason}{line_of(error)}") from error


def line_of(error: BaseException) -> str:
    """Where in foreign code an error came from: the file, the line, its text."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__", "")
        if name.split(".")[0] not in ("torch", "residualdroppath", "contextlib"):
            file = frame.f_code.co_filename
            text = linecache.getline(file, line).strip()
            place = f" ({file.replace(chr(92), '/').rpartition('/')[2]}, line {line}{f': `{text}`' if text else ''})"
    return place


def _came_through_reentrant_checkpoint(error: Exception) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is ReentrantCheckpoint.forward.__code__ for frame, _ in frames)


FOR_THE_FORWARD = ("_run", "call_child", "__getattr__", "__hash__", "__torch_function__", "guard", "_trace", "forward")


def is_our_own(error: Exception) -> bool:
    """Whether the error is a fault of this package, and none of the forward that is traced."""
    if isinstance(error, CannotFollow):
        return False
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    here = last.f_globals.get("__name__", "").startswith("residualdroppath.core.")
    return here and last.f_code.co_name not in FOR_THE_FORWARD
