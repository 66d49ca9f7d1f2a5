"""The page of an analysis: one HTML file that needs nothing else, layers and cells to be clicked."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...records.files import write_text
from ...reporting.page import data_url, script_data, template
from .figures import VALUES, set_curve
from .panel_catalogue import baseline, colours, matrix, profile, shown_matrices, shown_panels
from .summary import headline, skipped_lines, table_head, table_rows

TEMPLATE = template(Path(__file__).with_suffix(".html"))
Row = dict[str, Any]


def write_page(path: Path, record: Row, unit_maps: list[list[np.ndarray]]) -> Path:
    """Write the page and return its path; `unit_maps` holds |r| float[D, D] of each layer of each network."""
    networks = record["networks"]
    payload = {
        "networks": [
            _network(record, network, colour, maps)
            for network, colour, maps in zip(networks, colours(networks), unit_maps, strict=True)
        ],
        "panels": [vars(panel) for panel in shown_panels(networks)],
        "matrices": [vars(each) for each in shown_matrices(networks)],
    }
    head = [
        {"text": title, "colour": ([None, *colours(networks), None])[place]}
        for place, title in enumerate(table_head(record))
    ]
    html = TEMPLATE.render(
        title=" beside ".join(network["title"] for network in networks),
        headline=headline(record),
        head=head,
        rows=table_rows(record),
        skipped=skipped_lines(record),
        notes=[*payload["panels"], *payload["matrices"]],
        lesions=any({"deletion", "reordering"} & network["measures"].keys() for network in networks),
        relations=any(unit_maps),
        record=record,
        gigabytes=record["peak_memory_bytes"] / 2**30,
        payload=script_data(payload),
    )
    write_text(path, html)
    return path


def _network(record: Row, network: Row, colour: str, maps: list[np.ndarray]) -> Row:
    panels, tables = shown_panels(record["networks"]), shown_matrices(record["networks"])
    return {
        "title": network["title"],
        "colour": colour,
        "layers": network["layers"],
        "profiles": {panel.key: profile(network, panel.key) for panel in panels},
        "baselines": {panel.key: baseline(network, panel.key) for panel in panels},
        "matrices": {table.key: matrix(network, table.key) for table in tables},
        "units": [data_url(_picture(each)) for each in maps],
        "relations": network["measures"].get("relations"),
        "lesions": _deletion(network),
    }


def _deletion(network: Row) -> Row:
    """Curves of the section on deletion and reordering, in percent: points [x, y, spread, name]."""
    measures = network["measures"]
    quantity = "kept" if measures["answers"]["accuracy"] is None else "accuracy"
    found: Row = {"label": "accuracy (%)" if quantity == "accuracy" else "answers kept (%)"}
    if "deletion" in measures:
        sizes, mean, spread = set_curve(network, quantity)
        found["sets"] = [[*point, ""] for point in zip(sizes.tolist(), mean.tolist(), spread.tolist(), strict=True)]
    if "reordering" in measures:
        order = measures["reordering"]
        found["random"] = [
            [tau, 100 * value, 0, ""]
            for tau, value in zip(order["random"]["tau"], order["random"][quantity], strict=True)
        ]
        found["swaps"] = [
            [place, 100 * value, 0, name]
            for place, (name, value) in enumerate(
                zip(order["swaps"]["names"], order["swaps"][quantity], strict=True), 1
            )
        ]
    return found


def _picture(values: np.ndarray) -> bytes:
    """|r| in [0, 1] in the colours of the tables, one pixel per pair, at most 256 colours."""
    image = Image.fromarray(np.round(255 * values).astype(np.uint8)).convert("P")
    image.putdata(np.round(255 * values).astype(np.uint8).flatten().tolist())
    image.putpalette(np.round(255 * VALUES(np.linspace(0, 1, 256))[:, :3]).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
