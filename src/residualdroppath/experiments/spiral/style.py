"""Colours and names that all figures of the spiral share."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb

from ...reporting.page import COLOURS

ROW_COLOURS = {"untrained": "#b9bec6", **COLOURS}
# Diverging, light in the middle: what a unit says below and above its mean.
FEATURE_MAP = LinearSegmentedColormap.from_list(
    "features", ["#08306b", "#2f78b7", "#a9cfe5", "#f7f5f0", "#f3b58f", "#cf5246", "#6d0b22"]
)
ARM_COLOURS = (
    "#12908e",
    "#e07a3f",
    "#7a5cc0",
    "#c9a227",
    "#c2477f",
    "#4a7fd0",
    "#6b8e23",
    "#8c5a3c",
    "#5f6b7a",
    "#2fb5d6",
)


def feature_palette(levels: int = 256) -> np.ndarray:
    """uint8[levels, 3]: the colours of `FEATURE_MAP`, spread in the middle: units rise steeply at the corners."""
    values = np.linspace(-1, 1, levels)
    return np.round(255 * FEATURE_MAP(0.5 + 0.5 * np.sign(values) * np.abs(values) ** 0.65)[:, :3]).astype(np.uint8)


def decision_colours(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities float[arms, height, width] as a picture, float[height, width, 3]: the arms' colours, lightened."""
    arms = np.asarray([to_rgb(ARM_COLOURS[arm % len(ARM_COLOURS)]) for arm in range(len(probabilities))])
    mixed = np.einsum("ahw,ac->hwc", probabilities, arms)
    return 1 - 0.62 * (1 - mixed)
