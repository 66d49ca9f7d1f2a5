"""Record, figures and page of an analysis, as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...records.files import write_record
from ...records.tensors import write_arrays
from ...reporting.axes import save_figure
from .figures import draw_deletion, draw_matrices, draw_profiles
from .page import write_page
from .panel_catalogue import shown_matrices, shown_panels
from .run import Analysis


def write_report(analysis: Analysis, out: Path) -> Path:
    """`record.json`, `unit_maps.npz`, `figures/*.png` and `*.svg`, and `index.html`, whose path is returned."""
    write_record(out / "record.json", analysis.record)  # first: it can be drawn again
    save_unit_maps(analysis.unit_maps, out / "unit_maps.npz")
    (out / "figures").mkdir(exist_ok=True)
    for name, draw in drawings(analysis.record).items():
        save_figure(draw(analysis.record), out / "figures" / name)
    return write_page(out / "index.html", analysis.record, analysis.unit_maps)


def drawings(record: dict[str, Any]) -> dict[str, Callable[[dict[str, Any]], Figure]]:
    """The figures that the record has something for."""
    networks = record["networks"]
    found: dict[str, Callable[[dict[str, Any]], Figure]] = {}
    if shown_panels(networks):
        found["profiles"] = draw_profiles
    if shown_matrices(networks):
        found["matrices"] = draw_matrices
    if any({"deletion", "reordering"} & network["measures"].keys() for network in networks):
        found["lesions"] = draw_deletion
    return found


def save_unit_maps(maps: list[list[np.ndarray]], path: Path) -> None:
    """|r| in [0, 1] as uint8[D, D], one array per network and layer."""
    arrays = {
        f"{network}_{layer}": np.round(255 * each).astype(np.uint8)
        for network, layers in enumerate(maps)
        for layer, each in enumerate(layers)
    }
    write_arrays(path, arrays)


def read_unit_maps(path: Path, networks: int) -> list[list[np.ndarray]]:
    """What `save_unit_maps` wrote, as |r| in [0, 1]."""
    with np.load(path) as arrays:
        names = [[name for name in arrays if name.split("_")[0] == str(network)] for network in range(networks)]
        return [[arrays[name] / 255 for name in sorted(own, key=lambda each: int(each.split("_")[1]))] for own in names]
