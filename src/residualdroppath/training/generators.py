"""States of torch's generators that a network draws from, such as for dropout, of each process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """Of this process, on the CPU and on its device."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_generators(states: Sequence[dict[str, Tensor]], process: int, device: torch.device) -> None:
    """What `generator_states` returned in this process; one that was not there keeps its own seed."""
    if process >= len(states):
        return
    torch.set_rng_state(states[process]["cpu"])
    if device.type == "cuda" and "cuda" in states[process]:
        torch.cuda.set_rng_state(states[process]["cuda"], device)
