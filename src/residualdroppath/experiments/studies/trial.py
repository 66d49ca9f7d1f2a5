"""One trial: a run of the cache is made or gone on with, and tested if that is wanted."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ...data.images import ImageData
from ...data.load import cut_data
from ...data.parts import Source
from ...data.request import Request
from ...data.sources import read_source
from ...errors import UserError
from ...records.files import InUse, locked, write_json
from ...training.divergence import Diverged
from ...training.recipe import Recipe, TrainConfig, read_config
from ...training.run import cuts_of, request_of, train
from ...training.run_folder import RunFolder
from ...training.trainer import Trainer
from .definition import Measure
from .elastic_depth import elastic_depth
from .reuse import feature_reuse

OnEpoch = Callable[[int, int], None]
MEASURES: dict[Measure, Callable[[Trainer], dict[str, Any]]] = {
    "elastic_depth": elastic_depth,
    "feature_reuse": feature_reuse,
}


@dataclass(frozen=True)
class Trial:
    """All that a process needs to make one run: its recipe, canonical, its folder, and where its data are."""

    key: str
    label: str
    config: TrainConfig
    folder: Path
    data_dir: Path
    download: bool
    threads: int
    tested: bool
    work: float  # in plain iterations
    measures: tuple[Measure, ...] = ()  # taken when it is tested


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. `busy`: another process makes the same run at this time."""

    status: Literal["done", "diverged", "failed", "busy"]
    error: str = ""


def run_trial(trial: Trial, on_epoch: OnEpoch) -> Outcome:
    """Train, or go on with what is there, and keep everything in the trial's folder."""
    torch.set_num_threads(trial.threads)
    try:
        with locked(trial.folder.parent / "locks" / trial.key):
            _train(trial, on_epoch)
            if trial.tested:
                _examine(trial)
    except InUse:
        time.sleep(0.5)  # whoever asks again at once would find the same
        return Outcome("busy")
    except Diverged as error:
        write_json(trial.folder / "diverged.json", {"diverged": str(error)})
        return Outcome("diverged", str(error))
    except (UserError, OSError) as error:
        return Outcome("failed", str(error))
    return Outcome("done")


def _train(trial: Trial, on_epoch: OnEpoch) -> None:
    if (trial.folder / "result.json").is_file() and (_has_weights(trial) or not (trial.tested and _missing(trial))):
        return
    for name in ("result", "evaluation", *MEASURES):  # of a record; a network of ours gives its own
        (trial.folder / f"{name}.json").unlink(missing_ok=True)
    written = trial.folder / "config.yaml"
    started = written.is_file()
    # A folder of data may have been moved: its content decided the key, its name is that of the first run.
    config = read_config(TrainConfig, written) if started else trial.config
    if not started:
        shutil.rmtree(trial.folder, ignore_errors=True)  # what a kill left before the first epoch
    train(config, trial.folder, resume=started, data=_data(trial), on_epoch=on_epoch)
    shutil.rmtree(trial.folder / "checkpoints", ignore_errors=True)  # the result is whole


def _examine(trial: Trial) -> None:
    """Test the trained network, once, and take the measures that are not there yet."""
    if missing := _missing(trial):
        trainer = _trained(trial)
        for name, take in missing.items():
            write_json(trial.folder / f"{name}.json", take(trainer))


def _missing(trial: Trial) -> dict[str, Callable[[Trainer], dict[str, Any]]]:
    wanted = {"evaluation": _evaluation, **{name: MEASURES[name] for name in trial.measures}}
    return {name: take for name, take in wanted.items() if not (trial.folder / f"{name}.json").is_file()}


def _has_weights(trial: Trial) -> bool:
    """Not those of a run that was taken over from a record."""
    return (trial.folder / "model.safetensors").is_file()


def _evaluation(trainer: Trainer) -> dict[str, Any]:
    """Loss and accuracy on the test set, and on the training images as they are."""
    found: dict[str, Any] = {}
    for part, split in (("train", trainer.data.train), ("test", trainer.data.test)):
        scores = trainer.evaluate(split)
        found |= {f"{part}_loss": scores.loss, f"{part}_accuracy": scores.accuracy}
    return found


def _trained(trial: Trial) -> Trainer:
    trainer = Trainer(trial.config, _data(trial))
    weights = RunFolder(trial.folder).final_weights()
    assert weights is not None, "only what has been trained is examined"
    trainer.model.load_state_dict(weights)
    return trainer


def _data(trial: Trial) -> ImageData:
    return load(trial.config, trial.data_dir, trial.download).decoded()


def load(config: Recipe, data_dir: Path, download: bool) -> ImageData:
    """The data of a recipe; what several trials of a process use is read once."""
    config = config.model_copy(update={"data_dir": data_dir, "download": download})
    return _cut(request_of(config), tuple(cuts_of(config).items()))


@functools.lru_cache(maxsize=2)
def source(request: Request) -> Source:
    return read_source(request)


@functools.lru_cache(maxsize=4)
def _cut(request: Request, cuts: tuple[tuple[str, Any], ...]) -> ImageData:
    data = cut_data(source(request), request.data, **dict(cuts))
    data.require_test()
    return data
