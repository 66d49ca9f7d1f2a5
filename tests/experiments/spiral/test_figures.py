"""Figures as images: not blank, with the panels that they should have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from residualdroppath.experiments.spiral import report
from residualdroppath.experiments.spiral.config import SpiralConfig
from residualdroppath.experiments.spiral.data import make_data
from residualdroppath.experiments.spiral.figures import (
    ALONE,
    CELL,
    draw_answer,
    draw_groups,
    draw_matrices,
    draw_regions,
    draw_sweep,
)
from residualdroppath.experiments.spiral.folder import SpiralFolder
from residualdroppath.experiments.spiral.profiles import PANELS, draw_profiles
from residualdroppath.experiments.spiral.report import write_report
from residualdroppath.experiments.spiral.style import ROW_COLOURS
from residualdroppath.experiments.spiral.unit_grid import draw_unit_grid, grid_palette, grid_pixels
from residualdroppath.reporting.axes import save_figure

from ..images import blank, colours_of, near, panels

Run = tuple[dict[str, Any], Path]


@pytest.mark.parametrize(
    ("draw", "count"),
    [
        (draw_answer, 5),
        pytest.param(draw_profiles, len(PANELS), marks=pytest.mark.full),
        pytest.param(draw_matrices, 4 * 4, marks=pytest.mark.full),
        (draw_sweep, 4),
    ],
)
def test_figures_of_the_record(draw: Any, count: int, tiny_run: Run, tmp_path: Path) -> None:
    figure = draw(tiny_run[0])
    assert panels(figure) == count
    save_figure(figure, tmp_path / "figure")
    found = colours_of(tmp_path / "figure.png")
    assert len(found) > 50 and "<svg" in (tmp_path / "figure.svg").read_text()
    if draw in (draw_answer, draw_profiles):
        assert all(near(colour, found) for colour in ROW_COLOURS.values())


def test_regions_show_every_network(tiny: SpiralConfig, tiny_run: Run, tmp_path: Path) -> None:
    folder = SpiralFolder(tiny_run[1])
    pictures = {row: folder.pictures(row) for row in tiny.rows}
    results = {row: folder.result(row, 0) for row in tiny.rows}
    figure = draw_regions(pictures, results, make_data(tiny).test)
    assert panels(figure) == 4 and all(len(axes.images) == 1 and len(axes.collections) == 2 for axes in figure.axes)
    save_figure(figure, tmp_path / "regions")
    assert len(colours_of(tmp_path / "regions.png")) > 100


def test_groups_have_their_colours() -> None:
    groups = np.zeros((5, 4), dtype=np.int16)
    groups[2:4, 1], groups[0, 0], groups[4, 3] = 1, 21, 300  # layers, units
    figure = draw_groups({"untrained": {}, "plain": {"groups": groups}})
    (axes,) = figure.axes
    cells = np.asarray(axes.images[0].get_array())
    assert cells.shape == (4 * CELL, 5 * CELL, 3)
    bar = cells[CELL + 1, 2 * CELL : 4 * CELL]
    assert (bar[:-1] == bar[0]).all() and (bar[-1] == 1).all()  # one bar over both layers, and its end
    shown = cells[1::CELL, 1::CELL]  # units, layers
    assert (shown[1, 2] == shown[1, 3]).all() and (shown[0, 0] == shown[3, 4]).all()
    assert np.allclose(shown[2, 2] * 255, [int(ALONE[i : i + 2], 16) for i in (1, 3, 5)])
    assert len({tuple(colour) for colour in shown.reshape(-1, 3).tolist()}) == 3


def test_sheet_puts_each_map_in_its_place() -> None:
    maps = np.arange(1, 7, dtype=np.uint8).reshape(3, 2, 1, 1) * np.ones((3, 2, 4, 4), np.uint8)
    pixels = grid_pixels(maps, gap=2)
    assert pixels.shape == (2 * 6, 3 * 6)
    assert [int(pixels[2 + 6 * unit, 2 + 6 * layer]) for layer in range(3) for unit in range(2)] == [1, 2, 3, 4, 5, 6]
    assert (pixels[:2] == 0).all() and (pixels[:, 6:8] == 0).all()
    assert grid_palette().shape == (256, 3) and grid_palette()[0].tolist() == [255, 255, 255]


def test_sheet_frames_what_is_recreated(tiny_run: Run) -> None:
    folder = SpiralFolder(tiny_run[1])
    pictures, result = folder.pictures("plain"), folder.result("plain", 0)
    pictures["sources"] = np.asarray([[3, 2, 0, 5], [4, 7, 1, 1]])
    figure = draw_unit_grid("plain", pictures, result)
    above, sheet = figure.axes
    assert len(above.patches) == 4 and len(sheet.images) == 1
    frames = [patch for patch in sheet.patches if patch.get_label() == "recreated"]
    arrows = [patch for patch in sheet.patches if patch.get_label() == "arrow"]
    assert len(frames) == len(arrows) == 2


@pytest.mark.parametrize("save", [blank, pytest.param(save_figure, marks=pytest.mark.full)])
def test_report_writes_every_file(save: Any, tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "save_figure", save)
    record, out = tiny_run
    page = write_report(record, out)
    names = {path.name for path in (out / "figures").iterdir()}
    kinds = (
        "answer",
        "regions",
        "profiles",
        "matrices",
        "groups",
        "sweep",
        *(f"sheet_{row}" for row in record["rows"]),
    )
    assert names == {f"{name}.{kind}" for name in kinds for kind in ("png", "svg")} | {"training.gif"}
    frames = []
    with Image.open(out / "figures" / "training.gif") as film:
        assert film.n_frames == 3  # pyright: ignore[reportAttributeAccessIssue]
        for index in (0, 2):
            film.seek(index)
            frames.append(np.asarray(film.convert("RGB")))
    assert (frames[0] != frames[1]).any(2).mean() > 0.05  # it moves
    text = page.read_text()
    assert "http" not in text.replace("http://www.w3.org", "") and '<link rel="icon" href="data:,">' in text
    assert text.count("data:image/png") >= 6 + 2 * 4 and text.count("data:image/gif") == 1
