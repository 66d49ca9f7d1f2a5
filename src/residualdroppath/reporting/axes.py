"""What all figures share: inks, axes, and files that stay small."""

from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

INK, SOFT, AXIS, LINE = "#1d2733", "#4a5563", "#9aa3ae", "#e6e9ed"
# Halves of characters that stand for no byte of a name; the others do, in a locale that could not read it.
NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def drawn(name: str) -> str:
    """A name of a user as text of a figure: no formula between `$`, no byte that is no text, no `_` that hides it."""
    name = NO_BYTES.sub("\ufffd", name)
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def bare(axes: Axes) -> None:
    """No ticks, no frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def quiet(axes: Axes) -> None:
    """A light grid, and the two axes that are read."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(AXIS)
    axes.tick_params(which="both", labelsize=8, colors=SOFT, length=3)
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)


def finish_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Labels, whole numbers along x, a light grid, and a legend if anything is drawn."""
    axes.set_xlabel(x_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


def save_figure(figure: Figure, path: Path, *, svg: bool = True, dpi: int = 120) -> Path:
    """`path` with `.svg` and `.png` added; the latter, whose path is returned, of at most 256 colours to be small."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    if svg:
        figure.set_layout_engine("none")  # places have been found, which takes most of the time
        with matplotlib.rc_context({"svg.hashsalt": path.name}):
            figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    image = Image.open(buffer).convert("RGB")
    # Colours that few pixels have, as in the bar beside a matrix, keep their shades by the spread over colours.
    image = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(path.with_suffix(".png"), optimize=True)
    return path.with_suffix(".png")
