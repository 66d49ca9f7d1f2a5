"""Labelled images that a network is evaluated on, their classes matched to the network's by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..data.describe import decoding_lines
from ..data.folders import labelled_files
from ..data.identity import require_trained_on
from ..data.image_sources import DecodedOnce, Encoded, InMemory
from ..data.images import ImageData, Missing, Split
from ..data.parquet import parquet_folder
from ..data.parts import PARTS, lacking_classes, same_text, shortened
from ..data.request import NAMED_SETS, Request
from ..data.sources import read_source
from ..data.tars import holds_tars
from ..errors import UserError
from ..records.paths import expanded
from ..training.run import load_config_data
from .network import TrainedNetwork

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class LabelledImages:
    """Images with labels that are numbers of the network's classes; `notes` are for a person."""

    name: str
    part: Part
    split: Split
    notes: tuple[str, ...] = ()

    def all_notes(self) -> list[str]:
        """`notes`, and what decoding changed, which is known of images that have been used."""
        return [*self.notes, *decoding_lines(self.part, self.split)]


def own_images(network: TrainedNetwork, part: Part, data_dir: Path | None = None) -> LabelledImages:
    """A part of the data that the network was trained on, cut as its recipe has it.

    Raises `UserError` if they changed.
    """
    recipe = network.recipe
    changes: dict[str, Any] = {"image_size": network.about.image_size} | ({"data_dir": data_dir} if data_dir else {})
    data = load_config_data(recipe.model_copy(update=changes))
    require_trained_on(network.about.data, data)
    if part == "test":
        data.require_test()
    return LabelledImages(recipe.data, part, _part(data, part), data.notes)


def other_images(network: TrainedNetwork, request: Request, part: Part) -> LabelledImages:
    """A part of other data: a set as for training, or a folder CLASS/*.jpg. Classes are matched by name."""
    about = network.about
    request = replace(request, image_size=about.image_size)
    folder = expanded(request.data)
    in_files_of_many = folder.is_dir() and (parquet_folder(folder) is not None or holds_tars(folder))
    if request.data in NAMED_SETS or not folder.is_dir() or in_files_of_many:
        source = read_source(request)
        split = {"train": source.train, "validation": source.validation, "test": source.test}[part]
        if split is None:
            raise UserError(f"{request.data} has no validation part of its own; choose another `part`.")
        if isinstance(split.source, Missing):
            raise UserError(split.source.reason)
        names, notes = source.classes, list(source.notes[1:])
    else:
        files, notes = labelled_files(_folder_of_part(folder, part))
        names = tuple(map(same_text, files))
        paths = [path for found in files.values() for path in found]
        labels = [number for number, found in enumerate(files.values()) for _ in found]
        encoded = Encoded(paths, [str(path) for path in paths], channels=3, size=about.image_size)
        split = Split(encoded, torch.tensor(labels, dtype=torch.int64))
    if not len(split):
        raise UserError(f"{request.data} holds no images of the {part} part.")
    labels, mapped = match_classes(split.labels, names, about.classes, request.data)
    split = Split(_in_channels(split, about.image_channels, request.data), labels)
    lacking = lacking_classes(part, labels, about.classes)
    return LabelledImages(request.data, part, split.kept("images"), (*mapped, *lacking, *notes))


def match_classes(
    labels: torch.Tensor, names: Sequence[str], known: Sequence[str], data: str
) -> tuple[torch.Tensor, list[str]]:
    """Labels, places in `names`, as places of the same names in `known`. Raises `UserError` for other names."""
    for these, whose in ((names, data), (known, "the network")):
        if twice := [name for name, count in Counter(these).items() if count > 1]:
            raise UserError(f"The classes of {whose} cannot be matched by name, {shortened(twice)} stands for several.")
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"{data} must hold classes of the network alone, {shortened(list(known), 6)}, got {shortened(unknown, 6)}; "
            "rename or remove them."
        )
    number = torch.tensor([known.index(name) for name in names], dtype=torch.int64)
    moved = number.tolist() != list(range(len(names)))
    notes = ["classes are in another order or fewer than the network's, and were matched by name"] if moved else []
    return number[labels], notes


def _part(data: ImageData, part: Part) -> Split:
    return {"train": data.train, "validation": data.validation, "test": data.test}[part]


def _folder_of_part(folder: Path, part: Part) -> Path:
    """`folder/test` and the like, or `folder` itself if it has no parts."""
    found = [name for name in PARTS if (folder / name).is_dir()]
    its = [name for name in found if PARTS[name] == part]
    if found and not its:
        raise UserError(f"{folder} has no {part} part, it has {', '.join(found)}; choose another `part`.")
    if len(its) > 1:
        raise UserError(f"{folder} holds the {part} part twice, as {' and '.join(its)}; move one of them elsewhere.")
    return folder / its[0] if its else folder


def _in_channels(split: Split, channels: int, data: str) -> Any:
    """The images with as many channels as those that the network was trained on, or grey ones, which are repeated."""
    source = split.source.encoded if isinstance(split.source, DecodedOnce) else split.source
    if isinstance(source, Encoded):
        return Encoded(source.items, source.names, channels=channels, size=source.size)
    if isinstance(source, InMemory) and source.images.shape[1] not in (1, channels):
        raise UserError(f"The network takes grey images, those of {data} are in colour; choose other data.")
    return source
