"""Figures as files: small, and the same for the same figure."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from residualdroppath.reporting.axes import bare, drawn, finish_axes, quiet, save_figure


def gradient() -> Figure:
    """Thousands of colours."""
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.random.default_rng(0).random((40, 60, 3)))
    axes.set_title("noise")
    return figure


def test_png_has_few_colours_and_svg_is_apart(tmp_path: Path) -> None:
    written = save_figure(gradient(), tmp_path / "figure", dpi=60)
    assert written == tmp_path / "figure.png" and "<svg" in (tmp_path / "figure.svg").read_text()
    with Image.open(written) as image:
        assert image.mode == "P" and image.size == (180, 120)
    save_figure(gradient(), tmp_path / "alone", svg=False)
    assert not (tmp_path / "alone.svg").exists()


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        save_figure(gradient(), tmp_path / folder / "figure")
    for kind in ("png", "svg"):
        assert (tmp_path / f"one/figure.{kind}").read_bytes() == (tmp_path / f"two/figure.{kind}").read_bytes()


def test_axes() -> None:
    figure = Figure()
    curves, picture, finished = figure.subplots(1, 3)
    quiet(curves)
    bare(picture)
    finished.plot([1, 2], [0, 1], label="loss")
    finish_axes(finished, "epoch", "nats")
    shown = [[name for name, spine in axes.spines.items() if spine.get_visible()] for axes in figure.axes]
    assert shown == [["left", "bottom"], [], ["left", "bottom"]]
    assert len(picture.get_xticks()) == len(picture.get_yticks()) == 0 and len(curves.get_xticks())
    assert (finished.get_xlabel(), finished.get_ylabel()) == ("epoch", "nats")
    assert all(float(tick).is_integer() for tick in finished.get_xticks()) and finished.get_legend() is not None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("blocks.1", "blocks.1"),
        (r"a$\foo$", r"a\$\foo\$"),
        ("katze_\udcc3\udcbc", "katze_ü"),
        ("katze_\udcff \ud800", "katze_\ufffd \ufffd"),
        ("_old", " _old"),
    ],
)
def test_names_are_drawn_as_they_are(name: str, shown: str) -> None:
    """No formula between `$`, bytes of another locale, what is no text, and no `_` that hides a legend entry."""
    assert drawn(name) == shown
    figure = Figure(figsize=(1, 1))
    axes = figure.subplots()
    axes.plot([0, 1], label=drawn(name))
    finish_axes(axes, drawn(name), "")
    assert len(axes.get_legend_handles_labels()[1]) == 1
    figure.savefig(io.BytesIO(), dpi=20)
