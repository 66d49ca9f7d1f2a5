"""What a run computes on, and with which seeds: the device, a clock that waits for it, seeds for each purpose."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import torch

from ..errors import UserError


def derived_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose, unrelated to those for others."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "little")


def pick_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA if there is any. Raises `UserError` for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"`device` must be auto, cpu or cuda, got {name!r}.") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"`device` must be auto, cpu or cuda, got {name!r}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"`device` {name} is not there ({torch.cuda.device_count()} CUDA devices found); use cpu or auto."
        )
    return device


class Stopwatch:
    """Times calls on a device, its queue emptied before and after."""

    def __init__(self, device: torch.device):
        self.device = device

    def __call__(self, work: Callable[[], object]) -> float:
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
