"""Pictures of weights: maps side by side, red where positive, blue where negative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from symlearn.report import plots
from symlearn.report.background import LEVELS, Picture
from symlearn.report.table import count, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

COLUMNS = 6
"""Maps side by side."""

_COLORS = "RdBu_r"
_ROW = 0.66  # inches per row of maps
_PIXELS, _GAP = 32, 3  # of a drawn map, about, and between two


def draw(pictures: Sequence[Picture]) -> Figure:
    """Draw pictures below each other.

    Args:
        pictures: At least one.
    """
    from matplotlib.figure import Figure

    rows = [math.ceil(picture.n_shown / COLUMNS) for picture in pictures]
    height = _ROW * sum(rows) + 0.3 * len(pictures)
    figure = Figure(figsize=(plots.WIDTH, height), layout="constrained")
    axes = figure.subplots(len(pictures), 1, squeeze=False, height_ratios=rows)[:, 0]
    for one, picture in zip(axes, pictures, strict=True):
        _draw_maps(one, picture)
    return figure


def title(picture: Picture) -> str:
    """What a picture shows, in a few words."""
    what = f"{plots.short(picture.layer)}, {printable(picture.path)} {picture.kind}"
    size = f"{picture.height}×{picture.width}"
    return f"{what}: {picture.n_shown} of {count(picture.n_maps)}, {size}"


def _draw_maps(axes: Axes, picture: Picture) -> None:
    axes.set_title(title(picture), fontsize=9, color=plots.INK, loc="left", parse_math=False)
    axes.set_axis_off()
    axes.set_anchor("W")
    axes.imshow(_side_by_side(picture), interpolation="none")


def _side_by_side(picture: Picture) -> NDArray[np.uint8]:
    """The maps, framed, in rows of `COLUMNS`, as colours [height, width, 4]; clear between them."""
    from matplotlib import colormaps

    maps = np.array(picture.values(), dtype=np.float64)
    maps = maps.reshape(-1, picture.height, picture.width)
    times = max(1, _PIXELS // max(maps.shape[1:]))  # so that a frame is thin
    colors = colormaps[_COLORS](0.5 + maps / (2 * LEVELS), bytes=True)
    framed = np.full((len(maps), *(times * side + 2 for side in maps.shape[1:]), 4), 128, np.uint8)
    framed[..., 3] = 255
    framed[:, 1:-1, 1:-1] = colors.repeat(times, 1).repeat(times, 2)
    height, width = (side + _GAP for side in framed.shape[1:3])
    rows = math.ceil(len(maps) / COLUMNS)
    canvas = np.zeros((rows * height - _GAP, COLUMNS * width - _GAP, 4), np.uint8)
    for index, one in enumerate(framed):
        top, left = (index // COLUMNS) * height, (index % COLUMNS) * width
        canvas[top : top + height - _GAP, left : left + width - _GAP] = one
    return canvas
