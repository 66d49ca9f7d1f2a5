"""What a run computes on, and with which seeds: the device, a clock that waits for it, seeds for each purpose."""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from ..errors import UserError

LOGGER = logging.getLogger("residualdroppath")
# Channels below which a library under torch (2.13) may write where it must not, in channels-last training on a CPU.
NARROWEST = 8


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


def autocast(device: torch.device, amp: str) -> AbstractContextManager[Any]:
    """Automatic mixed precision: bf16, fp16, or none."""
    if amp == "none":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if amp == "bf16" else torch.float16)


def peak_memory(device: torch.device) -> dict[str, int]:
    """`peak_memory` of tensors on a GPU so far, in bytes; nothing on a CPU."""
    return {"peak_memory": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}


def memory_format(model: nn.Module, device: torch.device, *, channels_last: bool) -> torch.memory_format:
    """That of a network's weights and images: channels last if it is wanted, and safe."""
    if not channels_last:
        return torch.contiguous_format
    if device.type == "cpu" and (narrow := _too_narrow(model)):
        _warn_once(f"`channels_last` is left out: on a CPU it needs {NARROWEST} channels in each convolution; {narrow}")
        return torch.contiguous_format
    return torch.channels_last


@functools.cache
def _warn_once(message: str) -> None:
    LOGGER.warning(message)


def _too_narrow(model: nn.Module) -> str:
    """Which convolution has too few channels, if any; few channels of images, into a kernel above 1x1, are no harm."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            channels = module.out_channels
            if module.kernel_size == (1, 1):
                channels = min(channels, module.in_channels)
            if channels < NARROWEST:
                return f"{name} has {channels}"
    return ""


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
