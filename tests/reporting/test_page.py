"""Pages hold all that they show, and nothing in them is taken for markup."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import residualdroppath
from residualdroppath.reporting.page import data_url, script_data, template, write_page


def test_page_holds_its_curves_and_tables(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    tables = [{"title": "Rows", "head": ["a", "b"], "rows": [["<script>", 1], ["c", 2.5]]}]
    page = write_page(tmp_path, figure, title="<b>", lines=["one & two"], tables=tables)
    text = page.read_text()
    assert page == tmp_path / "index.html" and "<title>&lt;b&gt;</title>" in text and "one &amp; two" in text
    assert "<script>" not in text and "<td>&lt;script&gt;</td><td>1</td>" in text and '<th scope="col">b</th>' in text
    assert base64.b64encode((tmp_path / "curves.png").read_bytes()).decode() in text
    assert "http" not in text


def test_all_pages_have_one_look(tmp_path: Path) -> None:
    """Every page of the package extends `base.html`, which knows dark surroundings and small screens."""
    package = Path(residualdroppath.__file__).parent
    pages = [path for path in package.rglob("*.html") if path.name != "base.html"]
    assert len(pages) >= 4
    for path in pages:
        assert path.read_text().startswith('{% extends "base.html" %}'), path
        template(path)
    write_page(tmp_path, Figure(), title="t", lines=[], tables=[{"title": "a", "head": ["b"], "rows": []}])
    text = (tmp_path / "index.html").read_text()
    assert "prefers-color-scheme: dark" in text and "max-width: 860px" in text


def test_details_are_folded(tmp_path: Path) -> None:
    tables = [{"title": title, "head": ["a", "b"], "rows": [[1, 2]]} for title in ("Shown", "Folded")]
    text = write_page(tmp_path, Figure(), title="t", lines=[], tables=[tables[0], {**tables[1], "details": True}])
    assert "<h2>Shown</h2>" in text.read_text() and "<summary>Folded</summary>" in text.read_text()


def test_template_of_a_file_escapes_too(tmp_path: Path) -> None:
    (tmp_path / "own.html").write_text("{% if word %}\n<p>{{ word }}</p>\n{% endif %}")
    assert template(tmp_path / "own.html").render(word="<a>") == "<p>&lt;a&gt;</p>\n"


def test_images_within_a_page() -> None:
    assert data_url(b"abc", "gif") == "data:image/gif;base64," + base64.b64encode(b"abc").decode()


def test_data_cannot_end_its_script() -> None:
    value = {"title": "</script><b>", "values": [1, None]}
    assert "<" not in script_data(value) and json.loads(script_data(value)) == value
    with pytest.raises(ValueError, match="JSON"):
        script_data({"value": float("nan")})
