"""What all pictures of a study share: colours of variants, axes, and the drawing as part of a page."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ...reporting.axes import quiet
from ...reporting.page import COLOURS

Row = dict[str, Any]
OTHERS = ("#8a5aa8", "#2a9d6f", "#c2452d", "#6b8e23", "#b0578d", "#3f7f8c", "#7a6a4f", "#4b5fc0")
SIZE = (5.4, 3.7)
FEW = 5  # entries of a legend that leave room for what is drawn
LINE_OF_LEGEND = 0.19  # inches


@dataclass(frozen=True)
class Picture:
    title: str
    svg: str


@dataclass(frozen=True)
class Style:
    """Of the lines of a variant."""

    color: str
    linestyle: str


def variant_colours(record: Row) -> dict[str, str]:
    """The method's own for the first variant of it, others by their order."""
    found: dict[str, str] = {}
    others = list(OTHERS)
    for row in record["rows"]:
        if row["variant"] not in found:
            own = COLOURS.get(row["method"])
            free = own is not None and own not in found.values()
            found[row["variant"]] = own if own is not None and free else others[len(found) % len(others)]
    return found


def style_of(record: Row, name: str) -> Style:
    """That of the variant, which the name of a row begins with; dashed where another has the colour already."""
    colours = variant_colours(record)
    begins = [each for each in colours if name.startswith(f"{each},")]  # "a" and "a, b" may both be there
    variant = name if name in colours else max(begins, key=len)
    before = list(colours.values())[: list(colours).index(variant)]
    return Style(colours[variant], ("-", "--", ":")[before.count(colours[variant]) % 3])


def finish(axes: Any, x_label: str, y_label: str) -> None:
    """Axes, and a legend: inside of them where it is short, or else below, for which the figure grows."""
    quiet(axes)
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    entries = len(axes.get_legend_handles_labels()[0])
    if entries > FEW:
        figure = axes.figure
        figure.set_figheight(figure.get_figheight() + LINE_OF_LEGEND * ((entries + 1) // 2))
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8, handlelength=2.6)
    elif entries:
        axes.legend(frameon=False, fontsize=8)


def as_svg(figure: Figure, salt: str) -> str:
    """The drawing as an element of a page, as wide as its place."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    head, _, rest = text.partition(">")
    kept = [part for part in head.split() if not part.startswith(("width=", "height="))]
    return " ".join(kept) + ">" + rest
