"""The animation: the unit grid of each method over training, side by side, as a GIF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw, ImageFont

from ...reporting.axes import INK
from .config import TITLES
from .style import ROW_COLOURS, decision_colours, feature_palette

LEVELS, SHADES = 20, 12  # colours of features, of decisions: few compress well
CELL = 11  # pixels of a unit's map, its gap included
HEAD = 74  # pixels above a grid: the decisions and the title
MARGIN = 14
MOST_FRAMES = 16  # of the pictures taken; the file stays small
HOLD, STEP = 2500, 220  # milliseconds: the last frame, the others


def write_animation(path: Path, pictures: dict[str, dict[str, np.ndarray]]) -> None:
    """`pictures` by method, with `film_*` (`snapshots.py`). One palette for all frames, no dithering."""
    animated = {name: own for name, own in pictures.items() if "film_maps" in own}
    iterations = next(iter(animated.values()))["film_iterations"]
    shown = np.unique(np.linspace(0, len(iterations) - 1, MOST_FRAMES).round().astype(int))
    frames = [_frame(animated, index, int(iterations[index])) for index in shown.tolist()]
    durations = [STEP] * (len(frames) - 1) + [HOLD]
    frames[0].save(
        path, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False
    )


def _frame(animated: dict[str, dict[str, np.ndarray]], index: int, iteration: int) -> Image.Image:
    panels = [_panel(name, own, index) for name, own in animated.items()]
    height = max(panel.height for panel in panels) + 2 * MARGIN + 16
    width = sum(panel.width + MARGIN for panel in panels) + MARGIN
    frame = Image.new("P", (width, height), 0)
    frame.putpalette(_palette().tobytes())
    left = MARGIN
    for panel in panels:
        frame.paste(panel, (left, MARGIN))
        left += panel.width + MARGIN
    draw = ImageDraw.Draw(frame)
    draw.fontmode = "1"  # no half-tones: they are not in the palette
    last = int(next(iter(animated.values()))["film_iterations"][-1])
    text = f"iteration {iteration:,} of {last:,}"
    draw.text((MARGIN, height - 22), text, font=_font(13), fill=1)
    start = MARGIN + 190
    draw.rectangle((start, height - 16, width - MARGIN, height - 13), fill=2)
    draw.rectangle(
        (start, height - 16, start + round((width - MARGIN - start) * iteration / last), height - 13), fill=1
    )
    return frame


def _panel(name: str, own: dict[str, np.ndarray], index: int) -> Image.Image:
    maps = own["film_maps"][index]
    size = CELL - 1
    small = _shrunk(maps, size)
    levels = 3 + np.round((np.maximum(small, 1) - 1) / 254 * (LEVELS - 1)).astype(np.uint8)
    layers, units = levels.shape[:2]
    cells = np.zeros((units, CELL, layers, CELL), dtype=np.uint8)
    cells[:, 1:, :, 1:] = levels.transpose(1, 2, 0, 3)
    grid = cells.reshape(units * CELL, layers * CELL)
    panel = Image.new("P", (max(grid.shape[1], 200), grid.shape[0] + HEAD), 0)
    panel.putpalette(_palette().tobytes())
    panel.paste(Image.fromarray(grid, "L"), (0, HEAD))
    shades = 3 + LEVELS + np.round(own["film_decisions"][index] / 255 * (SHADES - 1)).astype(np.uint8)
    decisions = Image.fromarray(shades, "L").resize((64, 64), Image.Resampling.NEAREST)
    panel.paste(decisions, (0, 0))
    draw = ImageDraw.Draw(panel)
    draw.fontmode = "1"
    draw.text((76, 12), TITLES[name], font=_font(18, bold=True), fill=3 + LEVELS + SHADES + _order(name))
    draw.text((76, 38), "columns: layers, rows: units", font=_font(12), fill=1)
    return panel


def _shrunk(maps: np.ndarray, size: int) -> np.ndarray:
    layers, units, side, _ = maps.shape
    if side % size == 0:
        factor = side // size
        return maps.reshape(layers, units, size, factor, size, factor).mean((3, 5))
    rows = np.linspace(0, side - 1, size).round().astype(int)
    return maps[:, :, rows][:, :, :, rows]


def _order(name: str) -> int:
    return list(ROW_COLOURS).index(name)


def _palette() -> np.ndarray:
    """White, ink, a light grey; features; decisions; the methods' colours."""
    shares = np.linspace(0, 1, SHADES)
    shades = decision_colours(np.stack([shares, 1 - shares])[:, None, :])[0]
    colours = [(1, 1, 1), to_rgb(INK), (0.88, 0.9, 0.92)]
    named = [to_rgb(colour) for colour in ROW_COLOURS.values()]
    parts = [np.asarray(colours), feature_palette(LEVELS) / 255, shades, np.asarray(named)]
    palette = np.zeros((256, 3))
    stacked = np.concatenate(parts)
    palette[: len(stacked)] = stacked
    return np.round(255 * palette).astype(np.uint8)


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)
