"""Record, figures and page of an analysis, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .run import Analysis, write_record


def write_report(analysis: Analysis, out: Path) -> Path:
    """`record.json`, `unit_maps.npz`, `figures/*.png` and `*.svg`, and `index.html`, whose path is returned."""
    write_record(analysis.record, out / "record.json")
    save_unit_maps(analysis.unit_maps, out / "unit_maps.npz")
    from .page import write_page

    return write_page(out / "index.html", analysis.record, analysis.unit_maps)


def save_unit_maps(maps: list[list[np.ndarray]], path: Path) -> None:
    """|r| in [0, 1] as uint8[D, D], one array per network and layer."""
    arrays = {
        f"{network}_{layer}": np.round(255 * each).astype(np.uint8)
        for network, layers in enumerate(maps)
        for layer, each in enumerate(layers)
    }
    np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]


def read_unit_maps(path: Path, networks: int) -> list[list[np.ndarray]]:
    """What `save_unit_maps` wrote, as |r| in [0, 1]."""
    with np.load(path) as arrays:
        names = [[name for name in arrays if name.split("_")[0] == str(network)] for network in range(networks)]
        return [[arrays[name] / 255 for name in sorted(own, key=lambda each: int(each.split("_")[1]))] for own in names]
