"""All measures of one network, each from `residualdroppath.analysis`; what cannot be taken says why."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from ...analysis.capture import Features, capture, small_input
from ...analysis.cka import MIN_ROWS, MinibatchCKA
from ...analysis.mutual_information import ksg_with_null
from ...analysis.probes import label_entropy_bits, probe, reconstruction_r2, reduce_width
from ...analysis.relations import duplicates, effective_units, relation_matrix
from ...analysis.streams import MEASURES as STREAM_MEASURES
from ...analysis.streams import StreamStatistics
from ...analysis.units import closest, correlations, recreated, reuse
from ...errors import UserError
from ..progress import OnProgress
from .config import AnalyzeConfig
from .deletion_runs import measure_deletion
from .result import Result
from .sample import OF_TRAINING, Sample
from .targets import Network

KSG_ROWS, KSG_SHUFFLES = 1000, 10
TARGET_WIDTH = 64  # directions of an earlier layer that a later one is to give back
DUPLICATE = 0.95


def measure(
    network: Network,
    samples: tuple[Sample, Sample],
    config: AnalyzeConfig,
    device: torch.device,
    on_progress: OnProgress,
) -> Result:
    """Run the sample through the network once, the probes' training images too if they are needed, then measure."""
    held_out, training = samples
    wanted = set(config.measures)
    statistics = StreamStatistics() if "streams" in wanted else None
    similar = (MinibatchCKA(), MinibatchCKA()) if "cka" in wanted else None
    inputs: list[np.ndarray] = []

    def on_batch(streams: list[Tensor], branches: list[Tensor]) -> None:
        assert similar is not None
        if len(streams[0]) >= MIN_ROWS:
            similar[0].update(streams)
            similar[1].update(branches)

    features = capture(
        network.rdp,
        _watched(held_out, network, device, inputs, "images", on_progress),
        at_add=None if statistics is None else statistics.update,
        on_batch=None if similar is None else on_batch,
    )
    result = Result(features.names, features.branch_names)
    found = result.measures
    found["answers"] = _answers(network, features)
    if network.no_accuracy:
        result.skipped["accuracy"] = network.no_accuracy
    if statistics is not None:
        rows = statistics.result()
        found["streams"] = {name: [rows[index][name] for index in features.indices] for name in STREAM_MEASURES}
    if similar is not None:
        found["cka"] = {"streams": similar[0].result(), "branches": similar[1].result()}
    if wanted & OF_TRAINING:
        fit_inputs: list[np.ndarray] = []
        fit = capture(network.rdp, _watched(training, network, device, fit_inputs, "training images", on_progress))
        narrow = (
            [_narrow(layer, config) for layer in fit.streams],
            [_narrow(layer, config) for layer in features.streams],
        )
        if "probes" in wanted:
            _probes(result, narrow, fit.labels, features.labels, config, on_progress)
        if "reconstruction" in wanted:
            targets = np.concatenate(fit_inputs), np.concatenate(inputs)
            found["reconstruction"] = _reconstruction(narrow, targets, config, on_progress)
    if "relations" in wanted:
        _relations(result, features, config, on_progress)
    if "information" in wanted:
        found["information"] = _information(features, np.concatenate(inputs), config, on_progress)
    if wanted & {"deletion", "reordering"}:
        measure_deletion(
            result, network, features, held_out.first(config.deletion_samples), config, device, on_progress
        )
    return result


def plain_values(value: Any) -> Any:
    """For JSON: lists for arrays, rounded to six digits, None for what is not finite."""
    if isinstance(value, dict):
        return {key: plain_values(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return plain_values(value.tolist())
    if isinstance(value, list | tuple):
        return [plain_values(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _watched(
    sample: Sample, network: Network, device: torch.device, inputs: list[np.ndarray], what: str, on_progress: OnProgress
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a sample; their small inputs are kept on the way."""
    done = 0
    on_progress(what, 0, len(sample))
    for images, labels in sample.batches(network, device):
        inputs.append(small_input(images))
        yield images, labels
        done += len(labels)
        on_progress(what, done, len(sample))


def _answers(network: Network, features: Features) -> dict[str, Any]:
    if network.no_accuracy:
        return {"accuracy": None}
    return {"accuracy": float((features.outputs.argmax(1) == features.labels).mean())}


def _narrow(layer: np.ndarray, config: AnalyzeConfig) -> np.ndarray:
    return np.asarray(reduce_width(layer, config.probe_width, config.seed), dtype=np.float64)


def _probes(
    result: Result, narrow: tuple[list[np.ndarray], list[np.ndarray]], fit_labels: np.ndarray, labels: np.ndarray,
    config: AnalyzeConfig, on_progress: OnProgress,
) -> None:  # fmt: skip
    bits, accuracy = [], []
    try:
        for done, (train, test) in enumerate(zip(*narrow, strict=True)):
            on_progress("probes", done, len(result.layers))
            found = probe(train, fit_labels, test, labels, config.seed)
            bits.append(found.bits)
            accuracy.append(found.accuracy)
    except UserError as error:
        result.skipped["probes"] = str(error)
        return
    on_progress("probes", len(result.layers), len(result.layers))
    result.measures["probes"] = {"bits": bits, "accuracy": accuracy, "label_entropy": label_entropy_bits(labels)}


def _reconstruction(
    narrow: tuple[list[np.ndarray], list[np.ndarray]], inputs: tuple[np.ndarray, np.ndarray], config: AnalyzeConfig,
    on_progress: OnProgress,
) -> dict[str, Any]:  # fmt: skip
    """R2 of the small input from each layer, and [l, k] of layer k < l from layer l, NaN elsewhere."""
    count = len(narrow[0])
    total, done = count * (count + 1) // 2, 0
    targets = [tuple(reduce_width(side[k], TARGET_WIDTH, config.seed) for side in narrow) for k in range(count)]
    of_input, earlier = [], np.full((count, count), np.nan)
    for layer in range(count):
        train, test = narrow[0][layer], narrow[1][layer]
        of_input.append(_r2(train, test, inputs))
        for k in range(layer):
            earlier[layer, k] = _r2(train, test, targets[k])
            done += 1
            on_progress("reconstruction", done, total)
        done += 1
        on_progress("reconstruction", done, total)
    return {"input": of_input, "earlier": earlier}


def _r2(train: np.ndarray, test: np.ndarray, targets: tuple[np.ndarray, ...]) -> float:
    if not np.ptp(targets[1], axis=0).any():
        return math.nan  # a dead layer: nothing to give back
    return reconstruction_r2(train, targets[0], test, targets[1])


def _relations(result: Result, features: Features, config: AnalyzeConfig, on_progress: OnProgress) -> None:
    """Between at most `units` random units of each layer: tables of all pairs of layers grow with the square."""
    on_progress("relations", 0, 1)
    generator = np.random.default_rng(config.seed)
    chosen = []
    for layer in features.streams:
        width = layer.shape[1]
        few = (
            np.sort(generator.choice(width, config.units, replace=False)) if width > config.units else np.arange(width)
        )
        chosen.append(layer[:, few])
    table = closest(chosen)
    again = recreated(table)
    shares, groups = zip(*(duplicates(layer, DUPLICATE) for layer in chosen), strict=True)
    result.measures["relations"] = {
        "matrix": relation_matrix(table),
        "reuse": reuse(table),
        "recreated": again.per_layer,
        "recreated_share": again.share,
        "duplicates": shares,
        "largest_group": [max(map(len, each), default=1) for each in groups],
        "groups": [len(each) for each in groups],
        "effective": [effective_units(layer) for layer in chosen],
        "units": [layer.shape[1] for layer in chosen],
        "width": [layer.shape[1] for layer in features.streams],
    }
    for layer in chosen:
        r = correlations(layer, layer)
        result.unit_maps.append(r if len(r) < 2 else r[np.ix_(*[_by_likeness(r)] * 2)])
    on_progress("relations", 1, 1)


def _by_likeness(r: np.ndarray) -> np.ndarray:
    """The units in the order of a tree of average linkage on 1 - r, so that groups are blocks on the diagonal."""
    distance = 1 - r
    np.fill_diagonal(distance, 0.0)
    return leaves_list(linkage(squareform(distance, checks=False), method="average"))


def _information(
    features: Features, inputs: np.ndarray, config: AnalyzeConfig, on_progress: OnProgress
) -> dict[str, Any]:
    """KSG between the two leading components of each layer and of the input, and the same with rows shuffled."""
    source = _two_components(inputs[:KSG_ROWS])
    rows = []
    for done, layer in enumerate(features.streams):
        on_progress("information", done, len(features.streams))
        leading = _two_components(layer[:KSG_ROWS])
        rows.append(ksg_with_null(leading, source, shuffles=KSG_SHUFFLES, seed=config.seed)._asdict())
    on_progress("information", len(rows), len(rows))
    return {name: [row[name] for row in rows] for name in rows[0]}


def _two_components(features: np.ndarray) -> np.ndarray:
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :2] * scale[:2]
