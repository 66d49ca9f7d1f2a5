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


def write_page(
    folder: Path,
    figure: Figure,
    *,
    title: str,
    lines: list[str],
    tables: list[dict[str, Any]],
    refresh: int | None = None,
    figure_name: str = "curves.png",
) -> Path:
    """Write the figure as `figure_name` and the self-contained `index.html`, and return the latter's path.

    A table has `title`, `head`, `rows`, and may have `details`: it is then folded. Curves follow the first one.
    A browser loads the page anew every `refresh` seconds.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    (folder / figure_name).write_bytes(buffer.getvalue())
    page = folder / "index.html"
    html = template(Path(__file__).with_suffix(".html")).render(
        title=title, lines=lines, tables=tables, image=data_url(buffer.getvalue()), refresh=refresh
    )
    write_text(page, html)
    return page


def template(path: Path) -> jinja2.Template:
    """The template of a page, a file of its own, which may extend `base.html`: the look of all pages."""
    folders = [path.parent, Path(__file__).parent]
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template(path.name)


def data_url(data: bytes, kind: str = "png") -> str:
    """An image within a page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def script_data(value: Any) -> str:
    """JSON for a `<script type="application/json">`; `<` inside a script could end it."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
