"""The measures of `reuse.py` and what each of them is, apart from what takes them: nothing heavy is imported here."""

from __future__ import annotations

QUANTITIES = {
    "reuse": "mean |r| of a unit with its closest one in the layer before",
    "recreated": "share of units that were there, were lost and are made again",
    "duplicates": "share of units with |r| of 0.95 or more to another of their layer",
    "effective units": "participation ratio of a layer's units, in units",
    "readable": "accuracy of a linear probe, mean over layers",
    "input kept": "R2 of the input (8x8 pixels) from the last layer",
    "features kept": "R2 of each layer from the next but one, mean",
    "loss by deletion": "accuracy lost without one branch, mean over branches",
}
