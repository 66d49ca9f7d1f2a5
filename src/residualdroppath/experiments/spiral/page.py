"""The page of a spiral run: one HTML file that needs nothing else, the units in it to be clicked."""

from __future__ import annotations

import io
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...records.files import write_text
from ...reporting.page import data_url, script_data, template
from .config import TITLES
from .development import ALIKE
from .figures import COLOURED
from .measures import LOST, SAME
from .style import ROW_COLOURS, decision_colours
from .summary import QUESTION, answer
from .unit_grid import grid_palette, grid_pixels, shrunk

TEMPLATE = template(Path(__file__).with_suffix(".html"))
PAGE_MAP = 32  # pixels of a unit's map in the page, before it is enlarged


def write_page(
    path: Path, record: dict[str, Any], pictures: dict[str, dict[str, np.ndarray]], results: dict[str, Any],
    figures: dict[str, bytes], table: tuple[list[str], list[list[str]]],
) -> None:  # fmt: skip
    """`figures` holds the bytes of `NAME.png` and `NAME.gif`, `table` the head and the rows of the summary."""
    networks = {name: _network(name, own, results[name]) for name, own in pictures.items()}
    config, colours = record["config"], [ROW_COLOURS[name] for name in record["rows"]]
    html = TEMPLATE.render(
        record=record,
        config=config,
        question=QUESTION,
        answer=answer(record),
        head=table[0],
        rows=[{"cells": cells, "colour": colour} for cells, colour in zip_longest(table[1], colours)],
        figures={name: data_url(data, name.rsplit(".", 1)[1]) for name, data in figures.items()},
        names={name: TITLES[name] for name in networks},
        colours=ROW_COLOURS,
        payload=script_data({"same": SAME, "lost": LOST, "networks": networks}),
        same=SAME,
        lost=LOST,
        alike=ALIKE,
        coloured=COLOURED,
    )
    write_text(path, html)


def _network(name: str, own: dict[str, np.ndarray], result: dict[str, Any]) -> dict[str, Any]:
    maps = shrunk(own["maps"], PAGE_MAP)
    layers, units = maps.shape[:2]
    return {
        "title": TITLES[name],
        "colour": ROW_COLOURS[name],
        "layers": layers,
        "units": units,
        "side": maps.shape[2],
        "sheet": data_url(_indexed_png(grid_pixels(maps, gap=0)), "png"),
        "sources": own["sources"].tolist(),
        # Percent, by layer, earlier layer and unit.
        "reuse": [own["reuse"][layer, :layer].tolist() for layer in range(layers)],
        "scalars": result["scalars"],
        "profile": result["profiles"]["reuse"],
        "decisions": data_url(_rgb_png(decision_colours(own["decisions"])), "png"),
    }


def _indexed_png(pixels: np.ndarray) -> bytes:
    image = Image.frombytes("P", pixels.shape[::-1], pixels.tobytes())
    image.putpalette(grid_palette().tobytes())
    return _png(image)


def _rgb_png(picture: np.ndarray) -> bytes:
    return _png(Image.fromarray(np.round(255 * picture).astype(np.uint8)))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
