"""What figures show, as images."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image


def panels(figure: Figure) -> int:
    """How many panels show something."""
    return sum(axes.axison and axes.get_label() != "<colorbar>" for axes in figure.axes)


def colours_of(path: Path) -> set[tuple[int, ...]]:
    """Red, green and blue of all pixels."""
    counted = Image.open(path).convert("RGB").getcolors(2**24)
    return {colour for _, colour in counted or [] if isinstance(colour, tuple)}


def near(wanted: str, found: set[tuple[int, ...]]) -> bool:
    rgb = [int(wanted[i : i + 2], 16) for i in (1, 3, 5)]
    return any(max(abs(a - b) for a, b in zip(rgb, other, strict=True)) <= 6 for other in found)


def blank(figure: Figure, path: Path) -> Path:
    """In the place of `save_figure`, which takes most of the time of a report and has tests of its own."""
    path.with_suffix(".svg").write_text("<svg/>")
    Image.new("RGB", (1, 1)).save(path.with_suffix(".png"))
    return path.with_suffix(".png")
