"""Everything that is measured on one network, as plain numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...analysis.cka import MinibatchCKA
from ...analysis.mutual_information import binned_information, ksg_with_null
from ...analysis.probes import probe, reconstruction_r2
from ...analysis.relations import duplicates, effective_units, relation_matrix
from ...analysis.streams import StreamStatistics
from ...analysis.units import closest, recreated, recreated_sweep, reuse
from ...training.runtime import derived_seed
from .data import SpiralData
from .development import Developments
from .features import Features, look_at
from .network import SpiralNetwork
from .training import evaluate

SAME, LOST = 0.95, 0.80
SAMES, LOSTS = (0.90, 0.925, 0.95, 0.975, 0.99), (0.60, 0.70, 0.80, 0.90)
CKA_BATCH = 256
FIT_POINTS = 512  # of probes and reconstructions
KSG_POINTS, KSG_SHUFFLES, KSG_NEIGHBOURS = 512, 8, 3
BINS = 30
DIGITS = 5


def measure(
    network: SpiralNetwork, data: SpiralData, seed: int, developed: Developments | None = None
) -> dict[str, Any]:
    """Scalars, profiles over depth and matrices of one network; those of `developed` too if it was trained.

    Relations between units, and CKA, are taken over the grid; what concerns labels is fitted on training points and
    taken on test points. Profiles of L + 1 values start at the stem's output, those of L at the first block.
    """
    losses = {name: evaluate(network, getattr(data, name)) for name in ("train", "validation", "test")}
    over_grid = look_at(network, data.grid)
    layers = list(over_grid.streams.astype(np.float64))
    pairs = closest(layers)
    found = recreated(pairs, SAME, LOST)
    profiles = {
        "reuse": reuse(pairs),
        "recreated": found.per_layer,
        "duplicates": [duplicates(layer)[0] for layer in layers],
        "effective_units": [effective_units(layer) for layer in layers],
        **_of_data(network, data, seed),
    }
    matrices = {"relations": np.asarray(relation_matrix(pairs)), **_cka(over_grid, seed)}
    profiles |= _from_matrices(matrices)
    scalars: dict[str, float] = {}
    if developed is not None:
        scalars, profiles, matrices = developed.scalars, profiles | developed.profiles, matrices | developed.matrices
    return {
        "scalars": {
            "recreated": int(found.count),
            "recreated_share": float(found.share),
            "reuse": float(np.mean(profiles["reuse"])),
            **{f"{name}_loss": losses[name][0] for name in losses},
            **{f"{name}_accuracy": losses[name][1] for name in losses},
            "norm_ratio": float(np.mean(profiles["norm_ratio"])),
            "effective_units": float(np.mean(profiles["effective_units"])),
            **scalars,
        },
        "sweep": np.asarray(recreated_sweep(pairs, SAMES, LOSTS)).tolist(),
        "profiles": {name: _rounded(values) for name, values in profiles.items()},
        "matrices": {name: _rounded(values) for name, values in matrices.items()},
    }


def probed_layers(depth: int) -> list[int]:
    """Where probes are fitted, for they cost more than all else: 0, 1, 2, 4, 8, 16, ... and the last."""
    return sorted({0, depth, *(2**k for k in range(8) if 2**k < depth)})


def _of_data(network: SpiralNetwork, data: SpiralData, seed: int) -> dict[str, Any]:
    train, test = look_at(network, data.train.inputs[:FIT_POINTS]), look_at(network, data.test.inputs)
    labels_train, labels_test = data.train.labels[:FIT_POINTS].numpy(), data.test.labels.numpy()
    inputs_train, inputs_test = data.train.inputs[:FIT_POINTS].double().numpy(), data.test.inputs.double().numpy()
    positions = data.test.positions.double().numpy()[:KSG_POINTS, None]
    layers = probed_layers(len(train.branches))
    pairs = [(train.streams[layer].astype(np.float64), test.streams[layer].astype(np.float64)) for layer in layers]
    probes = [probe(own, labels_train, other, labels_test, seed=seed) for own, other in pairs]
    informations = [
        ksg_with_null(leading_plane(layer[:KSG_POINTS]), positions, KSG_NEIGHBOURS, KSG_SHUFFLES, seed)
        for _, layer in pairs
    ]
    return {
        "probe_bits": [found.bits for found in probes],
        "probe_accuracy": [found.accuracy for found in probes],
        "input_r2": [reconstruction_r2(own, inputs_train, other, inputs_test) for own, other in pairs],
        "ksg_information": [information[0] for information in informations],
        "ksg_null": [information[1] for information in informations],
        "ksg_null_sd": [information[2] for information in informations],
        "binned_information": [binned_information(layer, labels_test, BINS) for layer in test.streams],
        **_stream_statistics(test),
    }


def _stream_statistics(features: Features) -> dict[str, Any]:
    statistics = StreamStatistics()
    streams, branches = torch.from_numpy(features.streams), torch.from_numpy(features.branches)
    for index, branch in enumerate(branches):
        statistics.update(index, streams[index], branch, streams[index + 1])
    found = statistics.result()
    return {name: [row[name] for row in found] for name in ("norm_ratio", "cosine", "block_influence")}


def _cka(features: Features, seed: int) -> dict[str, Any]:
    """Between all pairs of layers, over the grid in random batches."""
    order = np.random.default_rng(derived_seed(seed, "spiral cka")).permutation(features.streams.shape[1])
    found = {}
    for name, layers in (("cka_streams", features.streams), ("cka_branches", features.branches)):
        estimate = MinibatchCKA()
        for start in range(0, len(order) - 3, CKA_BATCH):
            rows = order[start : start + CKA_BATCH]
            if len(rows) >= 4:
                estimate.update([layer[rows] for layer in layers])
        found[name] = estimate.result()
    return found


def _from_matrices(matrices: dict[str, np.ndarray]) -> dict[str, Any]:
    """Their parts that are read as profiles, so that these have intervals over seeds."""
    relations, streams = matrices["relations"], matrices["cka_streams"]
    return {
        # Entry k - 1: over all layers l, the maximal r of a unit with units of layer l - k.
        "reuse_by_distance": [float(np.diagonal(relations, -k).mean()) for k in range(1, len(relations))],
        "cka_with_last": streams[:, -1],
    }


def leading_plane(layer: np.ndarray) -> np.ndarray:
    """float[N, D] on its two leading principal components, float[N, 2]."""
    centred = layer - layer.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T


def _rounded(values: Any) -> Any:
    """Plain lists; five digits, the rest is noise of the estimates."""
    return np.round(np.asarray(values, dtype=np.float64), DIGITS).tolist()
