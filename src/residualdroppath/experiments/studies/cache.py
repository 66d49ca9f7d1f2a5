"""Runs and costs by content: what decides a result is its key, and its folder is named by it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...data.image_sources import Encoded, ImageSource, InMemory
from ...data.images import Missing, Split
from ...data.parts import Source
from ...data.stored import identity_of
from ...records.environment import device_name
from ...records.files import read_json, write_record
from ...records.paths import expanded
from ...training.method_options import OF_THE_RUN, OPTIONS
from ...training.recipe import MAY_CHANGE, TrainConfig
from ...training.runtime import pick_device
from ...training.starting_weights import weights_digest
from ...training.training_options import AugmentationOptions, OptimizationOptions, WeightOptions
from ..compare.cost import Cost

# Raised when a training by the same recipe gives another result than before; all runs are then made anew.
CACHE_FORMAT = 1
# Options that came after format 1, with the value at which training is what it was before: runs of then hold.
CAME_LATER: dict[str, Any] = {
    "trains": "last",
    "draw": "independent",
    "empty_draw": "redraw",
    "dropped_part_lr": 1.0,
    "model_options": {},
    "lr_over_time": "cosine",
    "accumulation": 1,
    "clip_grad": None,
    "pretrained": False,
    "weights": None,
    "freeze_modules": [],
    **AugmentationOptions().model_dump(mode="json"),
    **OptimizationOptions().model_dump(mode="json"),
    **WeightOptions().model_dump(mode="json"),
    "shuffle_buffer": None,
    "sync_batch_norm": False,
    "shard": False,
}
# What decides where and how fast a run is made, not what comes out.
NOT_OF_THE_RESULT = ("data_dir", "download", "threads", "check_frozen", "test", *MAY_CHANGE, "epochs")
# Options that act in `dropped_part` iterations alone.
OF_DROPPED_PARTS = ("frozen_norm", "train_trunk", "schedule", "trains", "empty_draw", "dropped_part_lr", "cycle")
# What a trained network is tested for.
EVALUATED = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")
# What the cost of an iteration does not depend on.
NOT_OF_THE_COST = (
    "seed", "init_seed", "order_seed", "plan_seed", "epochs", "iterations", "lr", "weight_decay", "warmup",
    "lr_over_time", "label_smoothing", "validation_fraction", "validate_every", "train_size", "images_per_class",
    "class_seed", "split_seed", "cycle", "weights", "shuffle_buffer",
)  # fmt: skip


def canonical(config: TrainConfig) -> TrainConfig:
    """`config` with defaults for all that its method does not look at, and for what does not decide a result."""
    free = [name for name in NOT_OF_THE_RESULT if name != "epochs" or config.iterations is not None]
    if config.method == "plain":
        free += [*(name for name in OPTIONS if name not in OF_THE_RUN), "cycle", "plan_seed"]
    elif config.method == "drop_path":
        free += OF_DROPPED_PARTS
    fields = type(config).model_fields
    unset = {name: fields[name].get_default(call_default_factory=True) for name in free if name in fields}
    device = pick_device(config.device).type
    weights = config.weights and expanded(config.weights).absolute()  # as trials may run in another folder
    return config.model_copy(update={**unset, "test": False, "device": device, "weights": weights})


def run_key(config: TrainConfig, fingerprint: str) -> str:
    """Of a canonical recipe and the content of its data."""
    values = config.model_dump(mode="json")
    if config.weights is not None:
        values["weights"] = weights_digest(config)  # the content, not the place
    return _digest({**_deciding(values), "data": fingerprint})


def cost_key(config: TrainConfig, plain: TrainConfig, threads: int, fingerprint: str) -> str:
    """Of the cost of an iteration of `config` in those of `plain`, both canonical."""
    both = [
        {name: value for name, value in _deciding(each.model_dump(mode="json")).items() if name not in NOT_OF_THE_COST}
        for each in (config, plain)
    ]
    for each in both:
        each |= {"iterations": None, "data": fingerprint}  # None: what is timed is a whole training of its own length
    return _digest({"costs": both, "threads": threads, "device": device_name(pick_device(config.device))})


def _deciding(values: dict[str, Any]) -> dict[str, Any]:
    same = {name for name, before in CAME_LATER.items() if values.get(name, before) == before}
    return {name: value for name, value in values.items() if name not in (*NOT_OF_THE_RESULT[:-1], *same)}


def _digest(content: dict[str, Any]) -> str:
    made_with = {"format": CACHE_FORMAT, "torch": torch.__version__.partition("+")[0]}
    text = json.dumps({**made_with, **content}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(source: Source) -> str:
    """The digest of all images and labels of a set, as pixels, or as files where they do not fit into memory."""
    digest = hashlib.sha256(f"{source.num_classes} {source.image_size} {source.mirrored}".encode())
    for split in (source.train, source.test):
        _add(digest, split)
    if source.validation is not None:
        _add(digest, source.validation)
    return digest.hexdigest()


def _add(digest: Any, split: Split) -> None:
    digest.update(split.labels.cpu().numpy().tobytes())
    images: ImageSource = split.source
    if isinstance(images, Encoded) and images.fits_memory:
        images = images.in_memory("all images, for their digest")
    if isinstance(images, InMemory):
        digest.update(images.images.cpu().contiguous().numpy().tobytes())
    elif isinstance(images, Encoded):
        for item in images.items:
            digest.update(identity_of(item))
    elif not isinstance(images, Missing):
        raise TypeError(f"no fingerprint of {type(images).__name__}")


class Cache:
    """Folders of runs, `KEY/`, and files of costs, `costs/KEY.json`; studies may share it."""

    def __init__(self, path: Path):
        self.path = path

    def folder(self, key: str) -> Path:
        return self.path / key

    def result(self, key: str) -> dict[str, Any] | None:
        """Of a run that has ended: that of `rdp train`, or the reason why it `diverged`; `evaluation` once tested."""
        folder = self.folder(key)
        if (folder / "diverged.json").is_file():
            return read_json(folder / "diverged.json", dict[str, Any])
        if not (folder / "result.json").is_file():
            return None
        result = read_json(folder / "result.json", dict[str, Any])
        tested = folder / "evaluation.json"
        return {**result, "evaluation": read_json(tested, dict[str, Any])} if tested.is_file() else result

    def keep_result(self, key: str, run: dict[str, Any]) -> None:
        """A run of a record, as if it had been made here, without its weights."""
        folder, measures = self.folder(key), run["measures"]
        if run["diverged"] is not None:
            write_record(folder / "diverged.json", {"diverged": run["diverged"], "from_record": True})
            return
        for name, value in measures.items():
            write_record(folder / f"{name}.json", value)
        write_record(folder / "evaluation.json", {name: run[name] for name in EVALUATED})
        result = {name: run[name] for name in ("validation_accuracy", "trunk_updates", "train_seconds")}
        write_record(folder / "result.json", {**result, "from_record": True})  # last: it says that all is there

    def cost(self, key: str) -> Cost | None:
        path = self.path / "costs" / f"{key}.json"
        return read_json(path, Cost) if path.is_file() else None

    def keep_cost(self, key: str, cost: Cost) -> None:
        write_record(self.path / "costs" / f"{key}.json", dataclasses.asdict(cost))

    def measures(self, key: str, names: Sequence[str]) -> dict[str, Any]:
        """Those of a run that have been taken."""
        paths = {name: self.folder(key) / f"{name}.json" for name in names}
        return {name: read_json(path, dict[str, Any]) for name, path in paths.items() if path.is_file()}

    def missing(self, keys: Sequence[str], *, tested: bool, measures: Sequence[str] = ()) -> list[str]:
        """Those of `keys` that have no result yet; with `tested`, or no evaluation, or not all `measures`."""
        found = {key: self.result(key) for key in dict.fromkeys(keys)}
        return [
            key
            for key, result in found.items()
            if result is None
            or (tested and "diverged" not in result)
            and ("evaluation" not in result or len(self.measures(key, measures)) < len(measures))
        ]
