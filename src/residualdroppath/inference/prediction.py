"""Classes of images without labels, in whatever folders they are; what cannot be read is left out and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data.folders import image_files
from ..data.image_sources import Encoded
from ..data.workers import end_with_parent_alone
from ..errors import UserError
from .network import TrainedNetwork

FEW = 64  # images for which starting workers does not pay


@dataclass(frozen=True)
class Prediction:
    """Of one image, its most probable classes in order, their probabilities, and what decoding changed."""

    file: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    remarks: tuple[str, ...] = ()


def find_images(inputs: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Images in folders and below, in order of names, and single files as they are given; and what was skipped."""
    found: list[Path] = []
    notes: list[str] = []
    for path in inputs:
        if path.is_dir():
            files, skipped = image_files(path)
            found += files
            notes += [f"{path}: {line}" for line in skipped]
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path} is neither a folder nor a file; check the path.")
    if not found:
        raise UserError(f"There are no images in {', '.join(map(str, inputs))}.")
    return list(dict.fromkeys(found)), notes


def predict(
    network: TrainedNetwork,
    files: Sequence[Path],
    *,
    top_k: int,
    batch_size: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Prediction], list[str]]:
    """One prediction for each file that is an image, in order, and a line for each that is not."""
    about = network.about
    encoded = Encoded(files, [str(file) for file in files], channels=about.image_channels, size=about.image_size)
    workers = 0 if len(files) <= FEW else min(8, torch.get_num_threads())
    loader = DataLoader(
        _WhatCanBeRead(encoded), batch_size=batch_size, num_workers=workers, worker_init_fn=end_with_parent_alone
    )
    predictions: list[Prediction] = []
    skipped: list[str] = []
    done = 0
    for images, reasons, remarks in loader:
        likely = network.logits(images).softmax(1).cpu().topk(top_k, 1)
        answers = zip(reasons, remarks, likely.values.tolist(), likely.indices.tolist(), strict=True)
        for reason, remarked, values, places in answers:
            file = files[done]
            done += 1
            if reason:
                skipped.append(f"skipped: {reason}")
                continue
            names = tuple(about.classes[place] for place in places)
            predictions.append(Prediction(file, names, tuple(values), tuple(remarked.splitlines())))
        on_progress(done, len(files))
    return predictions, skipped


class _WhatCanBeRead(Dataset[tuple[Tensor, str, str]]):
    """Pixels, an empty text and remarks in lines, or zeros and why they could not be read."""

    def __init__(self, images: Encoded):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, str, str]:
        try:
            pixels, remarks = self.images.decoded(index)
            return pixels, "", "\n".join(remarks)
        except UserError as error:
            shape = (self.images.channels, self.images.size, self.images.size)
            return torch.zeros(shape, dtype=torch.uint8), str(error), ""
