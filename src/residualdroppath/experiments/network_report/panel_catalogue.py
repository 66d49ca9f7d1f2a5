"""What is drawn over the layers, and of layers against layers; shared by the figures and the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...reporting.page import COLOURS

Row = dict[str, Any]
PAIR = (COLOURS["plain"], COLOURS["residual_drop_path"])


@dataclass(frozen=True)
class Panel:
    """One profile. `start` is the layer of its first value: 1 for what belongs to branches, after which layer 1 is."""

    key: str
    title: str
    label: str
    note: str
    start: int = 1
    digits: int = 3
    log: bool = False
    zero: bool = False


PANELS = (
    Panel("lost", "Lost without the branch", "accuracy lost (points)",
          "Layer deletion (Veit et al. 2016): accuracy of the whole network minus accuracy without this branch, "
          "on held-out "
          "images. The measure to trust for what a branch is worth.", digits=1, zero=True),
    Panel("changed", "Answers changed without it", "answers changed (%)",
          "Share of images that get another answer without this branch; needs no labels.", digits=1, zero=True),
    Panel("norm_ratio", "Size of what it adds", "‖branch‖ / ‖stream‖",
          "Mean over images of the norm of what a branch adds over the norm of the stream it is added to.", log=True),
    Panel("cosine", "Direction of what it adds", "cosine(branch, stream)",
          "Mean cosine of branch and stream; negative where the branch takes away.", zero=True),
    Panel("block_influence", "Block influence, a weak proxy", "1 − cosine(before, after)",
          "ShortGPT (arXiv 2403.03853). A weak proxy of what deletion measures: read it beside that only.",
          zero=True),
    Panel("probe_accuracy", "Early readout", "accuracy of a probe (%)",
          "Accuracy on held-out images of an affine classifier fitted on this layer: how early the answer is "
          "there. Wide layers "
          "are projected at random first.", start=0, digits=1),
    Panel("probe_bits", "Label, linearly", "held-out bits",
          "Held-out cross-entropy of the same classifier (V-information, arXiv 2002.10689); below the entropy "
          "of the labels, "
          "the layer tells something of them.", start=0),
    Panel("input_r2", "Input kept", "R² of the small input",
          "Held-out R² of a ridge regression from the pooled layer to the input averaged to 8 x 8 pixels.",
          start=0, zero=True),
    Panel("information", "Information on the input", "KSG of 2 components (nats)",
          "KSG estimate between the two leading components of the layer and of the input; the shuffled null is "
          "near 0. Two "
          "dimensions only: the whole layer holds more.", start=0, zero=True),
    Panel("reuse", "Reuse", "mean max r, layer before",
          "Mean over units of the largest |correlation| with a unit of the layer before. Small branches alone "
          "raise it; a wider "
          "layer before raises it by chance.", digits=3),
    Panel("recreated", "Recreated units", "units",
          "Units with r of 0.95 or more to a unit at least two layers back, while every layer between stays "
          "below 0.8.", start=0,
          digits=0, zero=True),
    Panel("duplicates", "Duplicate units", "units (%)",
          "Share of units with r of 0.95 or more to another unit of their layer.", start=0, digits=1, zero=True),
    Panel("effective", "Effective units", "of the layer's units (%)",
          "Participation ratio of the eigenvalues of the units' correlation matrix, over their number.",
          start=0, digits=1,
          zero=True),
)  # fmt: skip


@dataclass(frozen=True)
class Matrix:
    """One table of layers against layers; `start` as for panels. Entry [row, column] reads as `reading` says."""

    key: str
    title: str
    reading: str
    note: str
    start: int = 0


MATRICES = (
    Matrix("cka_streams", "CKA of streams", "CKA of {row} and {column}",
           "Debiased, minibatch CKA of the stream after each add, on maps averaged to 4 x 4; never clipped. "
           "Streams share what "
           "earlier layers put there, which inflates it: compare with the branches."),
    Matrix("cka_branches", "CKA of branches", "CKA of what {row} and {column} add",
           "The same on what each branch adds.", start=1),
    Matrix("relations", "Max r of units", "units of {row}: mean max r with units of {column}",
           "Mean over the units of the row's layer of their largest |correlation| with a unit of the column's "
           "layer; on the "
           "diagonal with the other units of their own layer."),
    Matrix("earlier", "Earlier layers kept", "R² of {column}, given back from {row}",
           "Held-out R² of a ridge regression from the row's layer to an earlier layer, the column's."),
)  # fmt: skip


def profile(network: Row, key: str) -> list[float | None] | None:
    """The values of a panel for one network, or None if they were not measured."""
    measures = network["measures"]
    if key in ("lost", "changed") and "deletion" in measures:
        whole, single = measures["deletion"]["whole"]["accuracy"], measures["deletion"]["single"]
        if key == "changed":
            return [100 * (1 - kept) for kept in single["kept"]]
        return None if whole is None else [100 * (whole - each) for each in single["accuracy"]]
    if key in ("norm_ratio", "cosine", "block_influence") and "streams" in measures:
        return measures["streams"][key]
    if key == "probe_accuracy" and "probes" in measures:
        return [100 * each for each in measures["probes"]["accuracy"]]
    if key == "probe_bits" and "probes" in measures:
        return measures["probes"]["bits"]
    if key == "input_r2" and "reconstruction" in measures:
        return measures["reconstruction"]["input"]
    if key == "information" and "information" in measures:
        return measures["information"]["value"]
    if key in ("reuse", "recreated", "duplicates", "effective") and "relations" in measures:
        own = measures["relations"]
        if key == "duplicates":
            return [100 * each for each in own["duplicates"]]
        if key == "effective":
            return [100 * each / units for each, units in zip(own["effective"], own["units"], strict=True)]
        return own[key]
    return None


def baseline(network: Row, key: str) -> list[float] | float | None:
    """What a profile is to be read against: a null or the entropy of the labels."""
    measures = network["measures"]
    if key == "information" and "information" in measures:
        return measures["information"]["null_mean"]
    if key == "probe_bits" and "probes" in measures:
        return measures["probes"]["label_entropy"]
    return None


def matrix(network: Row, key: str) -> list[list[float | None]] | None:
    """The entries of a table for one network, or None if they were not measured."""
    measures = network["measures"]
    kind, _, part = key.partition("_")
    if kind == "cka" and "cka" in measures:
        return measures["cka"][part]
    if key == "relations" and "relations" in measures:
        return measures["relations"]["matrix"]
    if key == "earlier" and "reconstruction" in measures:
        return measures["reconstruction"]["earlier"]
    return None


def shown_panels(networks: list[Row]) -> list[Panel]:
    return [panel for panel in PANELS if any(profile(network, panel.key) is not None for network in networks)]


def shown_matrices(networks: list[Row]) -> list[Matrix]:
    return [each for each in MATRICES if any(matrix(network, each.key) is not None for network in networks)]


def colours(networks: list[Row]) -> list[str]:
    """Those of the methods where they tell the networks apart."""
    own = [COLOURS.get(network["method"] or "") for network in networks]
    if all(own) and len(set(own)) == len(own):
        return [each for each in own if each]
    return [PAIR[1]] if len(networks) == 1 else list(PAIR)
