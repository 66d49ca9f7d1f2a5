"""Table, figures and page of a spiral run, from its record and its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from ...reporting.axes import save_figure
from .animation import write_animation
from .config import TITLES, SpiralConfig
from .data import make_data
from .figures import draw_answer, draw_groups, draw_matrices, draw_regions, draw_sweep
from .folder import SpiralFolder
from .page import write_page
from .profiles import draw_profiles
from .unit_grid import draw_unit_grid

HEAD = ["", "recreated units", "mean reuse", "branch / stream", "training loss", "test accuracy (%)"]
COLUMNS = (("recreated", 1, 1), ("reuse", 4, 1), ("norm_ratio", 3, 1), ("train_loss", 4, 1), ("test_accuracy", 2, 100))


def table_rows(record: dict[str, Any]) -> list[list[str]]:
    """One list of texts per network, then one per difference from plain, in the order of `HEAD`."""
    rows = [[TITLES[name], *_cells(row["scalars"], "")] for name, row in record["rows"].items()]
    for name, row in record["rows"].items():
        if row["against_plain"] is not None:
            rows.append([f"{TITLES[name]} − plain", *_cells(row["against_plain"], "+")])
    return rows


def terminal_table(record: dict[str, Any]) -> Table:
    config = record["config"]
    table = Table(
        title=f"spiral, {config['depth']} blocks of {config['width']} units, {config['seeds']} seeds: "
        "mean ± 95 % interval",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for index, name in enumerate(HEAD):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in table_rows(record):
        table.add_row(*row)
    return table


def write_report(
    record: dict[str, Any], out: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """All figures as PNG and SVG under `figures/`, the animation, and `index.html`, whose path is returned."""
    config = SpiralConfig(**record["config"])
    folder = SpiralFolder(out)
    pictures = {row: folder.pictures(row) for row in config.rows}
    results = {row: folder.result(row, 0) for row in config.rows}
    drawings: dict[str, Callable[[], Figure]] = {
        "answer": lambda: draw_answer(record),
        "regions": lambda: draw_regions(pictures, results, make_data(config).test),
        **{f"sheet_{row}": lambda row=row: draw_unit_grid(row, pictures[row], results[row]) for row in config.rows},
        "profiles": lambda: draw_profiles(record),
        "matrices": lambda: draw_matrices(record),
        "groups": lambda: draw_groups(pictures),
        "sweep": lambda: draw_sweep(record),
    }
    total = len(drawings) + 2
    place = out / "figures"
    place.mkdir(exist_ok=True)
    figures: dict[str, bytes] = {}
    for done, (name, draw) in enumerate(drawings.items()):
        on_progress(done, total)
        figures[f"{name}.png"] = save_figure(draw(), place / name).read_bytes()
    on_progress(total - 2, total)
    write_animation(place / "training.gif", pictures)
    figures["training.gif"] = (place / "training.gif").read_bytes()
    on_progress(total - 1, total)
    shown = {name: data for name, data in figures.items() if not name.startswith("sheet_")}
    write_page(out / "index.html", record, pictures, results, shown, (HEAD, table_rows(record)))
    on_progress(total, total)
    return out / "index.html"


def _cells(scalars: dict[str, Any], sign: str) -> list[str]:
    return [_cell(scalars[key], digits, factor, sign) for key, digits, factor in COLUMNS]


def _cell(own: dict[str, Any], digits: int, factor: float, sign: str) -> str:
    mean, low, high = own["mean"], own["low"], own["high"]
    text = f"{factor * mean:{sign}.{digits}f}"
    return text if low is None else f"{text} ± {factor * (high - mean):.{digits}f}"
