"""What has come of the iterations of the epoch under way."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from .processes import Processes


@dataclasses.dataclass
class EpochSoFar:
    """Iterations of the epoch under way, float64[2] sums of their losses and right answers here, and seconds."""

    totals: Tensor
    iterations: int = 0
    seconds: float = 0.0
    making_batches: float = 0.0

    @classmethod
    def new(cls, device: torch.device) -> EpochSoFar:
        return cls(torch.zeros(2, dtype=torch.float64, device=device))

    def add(self, loss: Tensor, correct: Tensor) -> None:
        self.iterations += 1
        self.totals += torch.stack([loss.double(), correct.double()])

    def row(self, processes: Processes, batch_size: int) -> dict[str, Any]:
        """Mean loss, accuracy, seconds, and the share of them that went into making batches, of all processes."""
        mean_loss, correct = (processes.sum(self.totals) / self.iterations).tolist()
        return {
            "train_loss": mean_loss / processes.count,
            "train_accuracy": correct / batch_size,
            "train_seconds": self.seconds,
            "images_per_second": self.iterations * batch_size / self.seconds,
            "data_share": self.making_batches / self.seconds,
        }

    def state_dict(self, processes: Processes) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"totals": processes.gather(self.totals.cpu())}

    @classmethod
    def of_state(cls, state: dict[str, Any], processes: Processes) -> EpochSoFar:
        return cls(**{**state, "totals": processes.own_of(state["totals"]).to(processes.device, copy=True)})
