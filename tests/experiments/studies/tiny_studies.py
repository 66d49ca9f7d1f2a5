"""Studies of a second: two or three epochs of a narrow network on 100 digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from residualdroppath.experiments.studies.cache import Cache
from residualdroppath.experiments.studies.definition import Study
from residualdroppath.experiments.studies.engines import Engine, Events
from residualdroppath.experiments.studies.progress import StudyProgress
from residualdroppath.experiments.studies.run import StudyRun
from residualdroppath.experiments.studies.trial import Trial, run_trial

BASE: dict[str, Any] = {
    "data": "digits", "train_size": 100, "depth": 8, "width": 2, "epochs": 2, "batch_size": 50, "crop_padding": 0,
    "device": "cpu",
}  # fmt: skip
# Two tries each, and a variant that follows another.
TUNED: dict[str, Any] = {
    "seeds": [0, 1],
    "tune": {"seeds": [7]},
    "variants": {
        "plain": {"method": "plain", "grid": {"lr": [0.02, 0.2]}},
        "ours": {"method": "residual_drop_path", "tries": [{"drop_path_rate": 0.3}, {"drop_path_rate": 0.6}]},
        "like ours": {"method": "residual_drop_path", "cycle": "same_batch", "like": "ours"},
    },
}


def values(**changes: Any) -> dict[str, Any]:
    variants = {"plain": {"method": "plain"}, "ours": {"method": "residual_drop_path", "drop_path_rate": 0.5}}
    return {"name": "tiny", "question": "Is it?", "base": BASE, "seeds": [0, 1], "variants": variants, **changes}


def study(**changes: Any) -> Study:
    return Study.model_validate(values(**changes))


def written(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(values(**changes), sort_keys=False))
    return path


class Inline:
    """An engine in this process; `trials` are those that it has run, in order."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []

    def __call__(self, trials: Sequence[Trial], events: Events) -> None:
        for trial in trials:
            self.trials.append(trial)
            events.started(trial)
            events.ended(trial, run_trial(trial, lambda epoch, epochs: None))


def answer(definition: Study, runs: Path, engine: Engine | None, *only: str) -> dict[str, Any]:
    return StudyRun(definition, Cache(runs), engine, threads=1, progress=StudyProgress(), only=only).record()
