"""Figures as images, and the page: not blank, with the panels that they should have, and on its own."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from residualdroppath.experiments.network_report import report
from residualdroppath.experiments.network_report.figures import draw_deletion, draw_matrices, draw_profiles
from residualdroppath.experiments.network_report.panel_catalogue import (
    MATRICES,
    PAIR,
    PANELS,
    colours,
    matrix,
    profile,
    shown_panels,
)
from residualdroppath.experiments.network_report.report import drawings, read_unit_maps, write_report
from residualdroppath.experiments.network_report.run import Analysis
from residualdroppath.experiments.network_report.summary import SCALARS, table_head, table_rows
from residualdroppath.reporting.axes import save_figure

from ..images import blank, colours_of, near, panels


@pytest.mark.parametrize(
    ("draw", "count"),
    [
        pytest.param(draw_profiles, len(PANELS), marks=pytest.mark.full),
        pytest.param(draw_matrices, 3 * len(MATRICES), marks=pytest.mark.full),
        (draw_deletion, 3),
    ],
)
def test_figures_of_a_pair(draw: Any, count: int, pair: Analysis, tmp_path: Path) -> None:
    figure = draw(pair.record)
    assert panels(figure) == count
    found = colours_of(save_figure(figure, tmp_path / "figure"))
    assert len(found) > 50 and "<svg" in (tmp_path / "figure.svg").read_text()
    if draw is not draw_matrices:
        assert all(near(colour, found) for colour in PAIR)


def test_what_was_not_measured_is_not_drawn(single: Analysis) -> None:
    networks = single.record["networks"]
    assert colours(networks) == [PAIR[1]]
    keys = [panel.key for panel in shown_panels(networks)]
    assert "changed" in keys and "lost" not in keys and "probe_bits" not in keys and "reuse" in keys
    assert panels(draw_profiles(single.record)) == len(keys)
    assert panels(draw_matrices(single.record)) == 1 and panels(draw_deletion(single.record)) == 2
    assert profile(networks[0], "input_r2") is None and matrix(networks[0], "cka_streams") is None
    assert set(drawings(single.record)) == {"profiles", "matrices", "lesions"}


def test_profiles_are_the_measures_in_what_the_label_says(pair: Analysis) -> None:
    network = pair.record["networks"][0]
    deletion = network["measures"]["deletion"]
    lost = profile(network, "lost")
    assert lost is not None
    assert lost[2] == pytest.approx(100 * (deletion["whole"]["accuracy"] - deletion["single"]["accuracy"][2]))
    assert network["scalars"]["worst_deletion"] == pytest.approx(max(each for each in lost if each is not None) / 100)
    for panel in PANELS:
        values = profile(network, panel.key)
        assert values is not None and len(values) + panel.start == len(network["layers"])
    assert [len(matrix(network, each.key) or []) + each.start for each in MATRICES] == [7] * len(MATRICES)


def test_the_table_shows_both_and_their_difference(pair: Analysis, single: Analysis) -> None:
    rows = table_rows(pair.record)
    assert table_head(pair.record) == ["", "plain, seed 0", "residual_drop_path, seed 0", "difference"]
    assert len(rows) == len(SCALARS) and all(len(row) == 4 for row in rows)
    first, second = (100 * network["scalars"]["accuracy"] for network in pair.record["networks"])
    assert rows[0] == ["accuracy (%)", f"{first:.1f}", f"{second:.1f}", f"{second - first:+.1f}"]
    assert not any(row[0] == "accuracy (%)" for row in table_rows(single.record))


@pytest.mark.parametrize("save", [blank, pytest.param(save_figure, marks=pytest.mark.full)])
def test_the_page_is_whole_and_needs_nothing_else(
    save: Any, pair: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "save_figure", save)
    page = write_report(pair, tmp_path).read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)|@import|https?://""", page.replace("${n.units[layer]}", "data:"))
    payload = json.loads(re.findall(r'<script id="payload" type="application/json">(.*?)</script>', page, re.S)[0])
    assert [network["colour"] for network in payload["networks"]] == list(PAIR)
    assert len(payload["panels"]) == len(PANELS) and len(payload["matrices"]) == len(MATRICES)
    assert len(payload["networks"][0]["units"]) == 7
    assert payload["networks"][1]["profiles"]["cosine"] == pair.record["networks"][1]["measures"]["streams"]["cosine"]
    for text in ("plain, seed 0 beside residual_drop_path, seed 0", "difference", "Layers against layers"):
        assert text in page
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"{name}.{kind}" for name in ("profiles", "matrices", "lesions") for kind in ("png", "svg")
    }
    again = read_unit_maps(tmp_path / "unit_maps.npz", 2)
    for kept, maps in zip(again, pair.unit_maps, strict=True):
        assert all(np.abs(a - b).max() <= 1 / 255 for a, b in zip(kept, maps, strict=True))
    assert json.loads((tmp_path / "record.json").read_text()) == pair.record


def test_a_title_cannot_break_the_page(single: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "save_figure", blank)
    record = json.loads(json.dumps(single.record))
    record["networks"][0]["title"] = "</script><b>"
    page = write_report(Analysis(record, single.unit_maps), tmp_path).read_text()
    assert "</script><b>" not in page and page.count("</script>") == 2


def test_titles_are_no_formulas(single: Analysis) -> None:
    network = {**single.record["networks"][0], "title": r"a$\foo$/run"}
    for draw in (draw_matrices, draw_deletion):
        draw({**single.record, "networks": [network]}).savefig(io.BytesIO(), dpi=20)
