"""Pages that need nothing else: curves as PNG, and one HTML file with tables below them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from ..records.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"plain": "#555555", "drop_path": "#d08c00", "residual_drop_path": "#0b6fb8"}  # of the methods, everywhere
CONTROL_COLOUR = "#8a5aa8"
TEMPLATE = jinja2.Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
img { max-width: 100%; height: auto }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
thead th { border-bottom: 2px solid #444 }
</style>
<h1>{{ title }}</h1>
{% for line in lines %}<p>{{ line }}</p>{% endfor %}
<img alt="Training curves" src="{{ image }}">
{% for table in tables %}
<h2>{{ table.title }}</h2>
<div class="wide"><table>
<thead><tr>{% for name in table.head %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}
</html>
""")


def write_page(folder: Path, figure: Figure, *, title: str, lines: list[str], tables: list[dict[str, Any]]) -> Path:
    """Write `curves.png` and the self-contained `index.html`, and return the latter's path."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    (folder / "curves.png").write_bytes(buffer.getvalue())
    page = folder / "index.html"
    write_text(page, TEMPLATE.render(title=title, lines=lines, tables=tables, image=data_url(buffer.getvalue())))
    return page


def template(path: Path) -> jinja2.Template:
    """The template of another page, a file of its own."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template(path.name)


def data_url(data: bytes, kind: str = "png") -> str:
    """An image within a page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def script_data(value: Any) -> str:
    """JSON for a `<script type="application/json">`; `<` inside a script could end it."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
