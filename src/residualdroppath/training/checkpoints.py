"""Which checkpoints of a run are kept, and when one counts as whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError, first_line
from ..records.files import sha256, write_json
from ..records.tensors import read_state, read_weights, write_state, write_weights


class Checkpoints:
    """A folder with the latest state of a run: weights, the rest of the state, and their digests."""

    def __init__(self, path: Path):
        self.path = path

    def begin(self) -> None:
        """Note that there is none yet: a note that is missing later is damage, not a run to be started anew."""
        write_json(self._latest, {"epoch": 0})

    def save(self, epoch: int, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Make `epoch` the latest checkpoint; the one before stays until this one is whole."""
        files = (self._weights(epoch), self._state(epoch))
        write_weights(files[0], weights)
        write_state(files[1], state)
        # Neither format notices a changed byte by itself.
        digests = {path.name: sha256(path) for path in files}
        write_json(self._latest, {"epoch": epoch, "sha256": digests})
        for path in self.path.glob("epoch_*"):
            if path not in files:
                path.unlink()

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Weights and state of the latest checkpoint, or None before the first. Runs no code from the files."""
        if not self._latest.exists() and not any(self.path.glob("epoch_*")):
            return None  # of a run that was begun before such notes were made
        try:
            written = json.loads(self._latest.read_text(encoding="utf-8"))
            epoch = int(written["epoch"])
            if epoch == 0:
                return None
            for name, digest in written.get("sha256", {}).items():
                if sha256(self.path / name) != digest:
                    raise ValueError(f"{name} is not what was written")
            weights = read_weights(self._weights(epoch))
            state = read_state(self._state(epoch))
            if not isinstance(state, dict) or state.get("epoch") != epoch:
                raise ValueError("it is not the state of that epoch")
        except Exception as error:  # a damaged file can fail in any way that its readers know
            raise UserError(
                f"The checkpoint in {self.path} is damaged ({first_line(error)}). Nothing was changed; put back "
                "a whole copy, or start anew with another `out`."
            ) from error
        return weights, state

    @property
    def _latest(self) -> Path:
        return self.path / "latest.json"

    def _weights(self, epoch: int) -> Path:
        return self.path / f"epoch_{epoch:04d}.safetensors"

    def _state(self, epoch: int) -> Path:
        return self.path / f"epoch_{epoch:04d}.state.pt"
