"""Which checkpoints of a run are kept, and when one counts as whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError, first_line
from ..records.files import sha256, write_json
from ..records.tensors import read_state, read_weights, write_state, write_weights

BEFORE_MANIFESTS = "latest.json"  # the one note of the only checkpoint, in folders of version 0.1.0

OUR_FILES = ("iteration_*", "epoch_*", BEFORE_MANIFESTS)


@dataclass(frozen=True)
class Manifest:
    """One checkpoint: after how many iterations and whole epochs, its validation accuracy, digests of its files."""

    path: Path
    iteration: int
    epoch: int
    accuracy: float | None
    digests: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """Weights and all other state; `damaged` are the newer checkpoints that could not be used, and why.

    `unchecked`: its digests are gone, or a kill came before they were written.
    """

    weights: dict[str, torch.Tensor]
    state: dict[str, Any]
    damaged: tuple[str, ...] = ()
    unchecked: bool = False


def kept(manifests: Sequence[Manifest], last: int) -> list[Manifest]:
    """The `last` of them, and the one of the best validation accuracy, the first such."""
    in_order = sorted(manifests, key=lambda manifest: manifest.iteration)
    best = best_of(in_order)
    return [manifest for manifest in in_order if manifest in in_order[-last:] or manifest is best]


def best_of(manifests: Sequence[Manifest]) -> Manifest | None:
    """The first one of the best validation accuracy."""
    validated = [manifest for manifest in manifests if manifest.accuracy is not None]
    return max(validated, key=lambda manifest: manifest.accuracy or 0.0, default=None)


class Checkpoints:
    """A folder with the last states of a run and the best: weights, the rest of the state, and their digests."""

    def __init__(self, path: Path):
        self.path = path

    def save(
        self,
        weights: dict[str, torch.Tensor],
        state: dict[str, Any],
        *,
        accuracy: float | None = None,
        last: int = 2,
        about: dict[str, Any] | None = None,
    ) -> None:
        """Make this the latest checkpoint; those before stay until this one is whole. `about` goes with the weights."""
        name = f"iteration_{state['iteration']:08d}"
        files = [self.path / f"{name}.safetensors", self.path / f"{name}.state.pt"]
        manifest = self.path / f"{name}.json"
        manifest.unlink(missing_ok=True)  # that of the same iteration, if it was saved before: not of these files
        write_weights(files[0], weights, about)
        write_state(files[1], state)
        # Neither format notices a changed byte by itself.
        digests = {path.name: sha256(path) for path in files}
        write_json(
            manifest,
            {
                "iteration": state["iteration"],
                "epoch": state["epoch"],
                "validation_accuracy": accuracy,
                "sha256": digests,
            },
        )
        # Later ones are of a course that was given up: its checkpoints were damaged.
        self._leave(kept([other for other in self._manifests()[0] if other.iteration <= state["iteration"]], last))

    def load(self) -> Checkpoint | None:
        """The latest that is whole, or None before the first. Runs no code from the files."""
        manifests, damaged = self._manifests()
        for manifest in reversed(manifests):
            try:
                weights, state = _read(manifest)
            except Exception as error:  # a damaged file can fail in any way that its readers know
                damaged.append(f"{manifest.path.name}: {first_line(error)}")
            else:
                return Checkpoint(weights, state, tuple(damaged))
        states = list(self.path.glob("*.state.pt"))  # weights alone are what a kill leaves of the first checkpoint
        if states and not damaged:
            weights = states[0].with_name(states[0].name.replace(".state.pt", ".safetensors"))
            if len(states) == 1 and weights.is_file():
                return Checkpoint(read_weights(weights), read_state(states[0]), unchecked=True)
            damaged = [f"there are {len(states)}, and no notes on them"]
        if damaged:
            raise UserError(
                f"The checkpoint in {self.path} is damaged ({'; '.join(damaged)}). Nothing was changed; put back "
                "a whole copy, or start anew with another `out`."
            )
        return None

    def best_weights(self) -> dict[str, torch.Tensor]:
        """Of the best validation accuracy. Raises `UserError` if they are not what was written."""
        best = best_of(self._manifests()[0])
        if best is None:
            raise UserError(f"{self.path} holds no checkpoint with a validation accuracy; choose `use: last`.")
        try:
            return _read(best)[0]
        except Exception as error:  # as in `load`
            raise UserError(
                f"The best checkpoint, {best.path}, is damaged ({first_line(error)}); put back a whole copy."
            ) from error

    def last_weights(self) -> Path | None:
        """The file of weights of the latest checkpoint that is whole."""
        for manifest in reversed(self._manifests()[0]):
            names = [name for name in manifest.digests if name.endswith(".safetensors")]
            path = manifest.path.with_name(names[0]) if names else None
            if path is not None and path.is_file() and sha256(path) == manifest.digests[path.name]:
                return path
        return None

    def _manifests(self) -> tuple[list[Manifest], list[str]]:
        """Those that can be read, in order of iterations, and what is wrong with others."""
        found, damaged = [], []
        for path in self.path.glob("*.json"):
            try:
                found.append(_read_manifest(path))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                damaged.append(f"{path.name}: {first_line(error)}")
        return sorted(found, key=lambda manifest: (manifest.iteration, manifest.epoch)), damaged

    def _leave(self, manifests: Sequence[Manifest]) -> None:
        """Remove all but these, notes first: a note without files would be damage."""
        names = {name for manifest in manifests for name in (manifest.path.name, *manifest.digests)}
        ours = [path for form in OUR_FILES for path in self.path.glob(form)]
        others = [path for path in ours if path.name not in names]
        for path in sorted(others, key=lambda path: path.suffix != ".json"):
            path.unlink()


def _read_manifest(path: Path) -> Manifest:
    written = json.loads(path.read_text(encoding="utf-8"))
    epoch, digests = int(written["epoch"]), dict(written["sha256"])
    accuracy = written.get("validation_accuracy")
    # Of version 0.1.0: it is older than any other, whatever its number of iterations.
    iteration = 0 if path.name == BEFORE_MANIFESTS else int(written["iteration"])
    if len(digests) != 2:
        raise ValueError("it names no files")
    return Manifest(path, iteration, epoch, None if accuracy is None else float(accuracy), digests)


def _read(manifest: Manifest) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    for name, digest in manifest.digests.items():
        if sha256(manifest.path.with_name(name)) != digest:
            raise ValueError(f"{name} is not what was written")
    weights, state = sorted(manifest.digests, key=lambda name: name.endswith(".state.pt"))
    read = read_state(manifest.path.with_name(state))
    if not isinstance(read, dict) or read.get("epoch") != manifest.epoch:
        raise ValueError("it is not the state of that epoch")
    if manifest.path.name != BEFORE_MANIFESTS and read.get("iteration") != manifest.iteration:
        raise ValueError("it is not the state of that iteration")
    return read_weights(manifest.path.with_name(weights)), read
