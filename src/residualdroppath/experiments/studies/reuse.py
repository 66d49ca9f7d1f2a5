"""Feature reuse of a trained network in a few numbers, to be held against its accuracy: measures of docs/measures.md.

Fits are made on validation images and measured on test images: training images are known by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ...analysis.capture import Features, capture, small_input
from ...analysis.deletion import answers, without
from ...analysis.probes import probe, reconstruction_r2, reduce_width
from ...analysis.relations import duplicates, effective_units
from ...analysis.units import closest, recreated, reuse
from ...core.residual_drop_path import ResidualDropPath
from ...training.trainer import Trainer
from .measured import Batches, branches_of, first_images
from .reuse_names import QUANTITIES

IMAGES = 1000  # to fit on, and as many to measure on
WIDTH = 128  # of a layer, at most
DUPLICATE = 0.95


def feature_reuse(trainer: Trainer, seed: int = 0) -> dict[str, float]:
    """One number for each of `QUANTITIES`."""
    # BLAS below scikit-learn would take all cores.
    with threadpool_limits(torch.get_num_threads()), branches_of(trainer) as rdp:
        return _feature_reuse(trainer, rdp, seed)


def _feature_reuse(trainer: Trainer, rdp: ResidualDropPath, seed: int) -> dict[str, float]:
    fit, test = (first_images(trainer, split, IMAGES) for split in (trainer.data.validation, trainer.data.test))
    fitted, held_out = capture(rdp, fit), capture(rdp, test)
    training, streams = (
        [np.asarray(reduce_width(layer, WIDTH, seed), dtype=np.float64) for layer in features.streams]
        for features in (fitted, held_out)
    )
    table = closest(streams)
    inputs = _inputs(fit), _inputs(test)
    kept = [
        reconstruction_r2(training[layer], training[layer - 2], streams[layer], streams[layer - 2])
        for layer in range(2, len(streams))
        if np.ptp(streams[layer - 2], axis=0).any()
    ]
    found = {
        "reuse": _mean(reuse(table)),
        "recreated": recreated(table).share,
        "duplicates": _mean([duplicates(layer, DUPLICATE)[0] for layer in streams]),
        "effective units": _mean([effective_units(layer) for layer in streams]),
        "readable": _mean(
            [
                probe(own, fitted.labels, other, held_out.labels, seed).accuracy
                for own, other in zip(training, streams, strict=True)
            ]
        ),
        "input kept": reconstruction_r2(training[-1], inputs[0], streams[-1], inputs[1]),
        "features kept": _mean(kept),
        "loss by deletion": _loss_by_deletion(trainer, rdp, test, held_out),
    }
    assert found.keys() == QUANTITIES.keys()
    return found


def _loss_by_deletion(trainer: Trainer, rdp: ResidualDropPath, batches: Batches, features: Features) -> float:
    alterations = [partial(without, rdp, indices) for indices in ((), *((index,) for index in features.indices))]
    given, labels = answers(trainer.model, batches, alterations)
    accuracy = (given == labels).mean(1)
    return float(accuracy[0] - accuracy[1:].mean())


def _inputs(batches: Batches) -> np.ndarray:
    return np.concatenate([small_input(images) for images, _ in batches]).astype(np.float64)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
