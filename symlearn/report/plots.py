"""The report as a figure: each layer's shares of effective parameters, and its prior precisions.

Colours are the Okabe-Ito set, which people with the common colour-vision deficiencies can tell
apart; a marker per path says the same without colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from symlearn.report.rule import UNDECIDED
from symlearn.report.table import percent, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from symlearn.report.structure import LayerStructure, StructureReport

DPI = 150
"""Resolution of saved bitmaps."""

INK, FAINT = "#222222", "#C8C8C8"
"""Colours of text and of grids."""


class Style(NamedTuple):
    """How one path is drawn."""

    color: str
    marker: str


_STYLES = {
    "conv": Style("#0072B2", "o"),
    "ffc": Style("#E69F00", "s"),
    "fc": Style("#D55E00", "D"),
    "gconv": Style("#009E73", "^"),
    "sconv": Style("#56B4E9", "v"),
    "sfc": Style("#F0E442", "P"),
    "lconv": Style("#CC79A7", "X"),
    "power": Style("#999999", "<"),
    "emlp": Style("#000000", ">"),
}
_BRIGHT = 140  # luminance (of 255) from which a bar's number is dark
_BAR = 0.62  # height of a bar; layers are 1 apart
_SPREAD = 0.5  # height over which the markers of one layer spread, so that equal ones both show
_LABELLED = 0.1  # shares from here on are wide enough to carry their number
_BEYOND = 1.07  # where infinity is, in widths of the axes


def draw(report: StructureReport) -> Figure:
    """Draw relative effective parameters (bars) and prior precisions (markers), a line per layer.

    Args:
        report: The report to draw. Groups outside the relaxed layers are left out.

    Returns:
        A figure that belongs to no pyplot state.
    """
    # Imported on use: matplotlib is slow to load and may write its font cache when it does.
    from matplotlib.figure import Figure

    height = 1.7 + 0.42 * max(len(report.layers), 1)
    figure = Figure(figsize=(10.0, height), layout="constrained")
    shares, precisions = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1.0])
    styles = _styles(report.layers)
    _set_up(shares, "Relative effective parameters, and verdict", report.layers)
    _set_up(precisions, "Prior precision δ (high means off)", report.layers)
    _set_up_scales(shares, precisions, len(report.layers))
    for line, layer in enumerate(report.layers):
        _draw_shares(shares, line, layer, styles)
        _draw_verdict(shares, line, layer)
        _draw_precisions(precisions, line, layer, styles)
    deltas = [path.prior_precision for layer in report.layers for path in layer.paths.values()]
    if math.inf in deltas:
        _label_infinity(precisions)
    _draw_legend(figure, styles)
    return figure


def _styles(layers: Iterable[LayerStructure]) -> dict[str, Style]:
    """Give each path its own style, and paths of other makers the styles that are left."""
    names = list(dict.fromkeys(name for layer in layers for name in layer.paths))
    free = [style for name, style in reversed(_STYLES.items()) if name not in names]
    others = [name for name in names if name not in _STYLES]
    pool = free or list(_STYLES.values())
    extra = {name: pool[index % len(pool)] for index, name in enumerate(others)}
    return {name: _STYLES.get(name) or extra[name] for name in names}


def _set_up(axes: Axes, title: str, layers: tuple[LayerStructure, ...]) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_yticks(range(len(layers)))
    axes.set_yticklabels([printable(layer.name) for layer in layers], parse_math=False)
    axes.tick_params(length=0, labelsize=9, colors=INK)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _set_up_scales(shares: Axes, precisions: Axes, n_layers: int) -> None:
    shares.set_ylim(max(n_layers, 1) - 0.5, -0.5)
    shares.set_xlim(0.0, 1.0)
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    shares.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
    precisions.set_xscale("log")
    precisions.minorticks_off()
    precisions.margins(x=0.06)
    precisions.grid(color=FAINT, linewidth=0.6)


def _draw_shares(axes: Axes, line: int, layer: LayerStructure, styles: dict[str, Style]) -> None:
    left = 0.0
    for name, path in layer.paths.items():
        share = path.relative_effective_params
        if not (math.isfinite(share) and share > 0.0):
            continue
        color = styles[name].color
        axes.barh(line, share, _BAR, left, color=color, edgecolor="white", linewidth=0.8)
        if share >= _LABELLED:
            _write(axes, left + share / 2, line, percent(share), _ink_on(color))
        left += share
    if left == 0.0:
        known = all(math.isfinite(x.relative_effective_params) for x in layer.paths.values())
        axes.barh(line, 1.0, _BAR, color="none", edgecolor=FAINT, linewidth=0.8)
        _write(axes, 0.5, line, "no effective parameters" if known else "not measured", INK)


def _write(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=8, color=color)


def _draw_verdict(axes: Axes, line: int, layer: LayerStructure) -> None:
    axes.annotate(
        printable(layer.verdict),
        (1.0, line),
        xytext=(6, 0),
        textcoords="offset points",
        annotation_clip=False,
        va="center",
        fontsize=9,
        fontstyle="italic" if layer.verdict == UNDECIDED else "normal",
        color=INK,
        parse_math=False,
    )


def _draw_precisions(
    axes: Axes, line: int, layer: LayerStructure, styles: dict[str, Style]
) -> None:
    step = _SPREAD / len(layer.paths)
    for index, (name, path) in enumerate(layer.paths.items()):
        height = line + step * (index - (len(layer.paths) - 1) / 2)
        color, marker = styles[name]
        look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 6.5}
        look |= {"markerfacecolor": color if path.on else "white", "markeredgewidth": 1.5}
        if math.isfinite(path.prior_precision) and path.prior_precision > 0.0:
            axes.plot([path.prior_precision], [height], **look)
        elif path.prior_precision == math.inf:
            transform = axes.get_yaxis_transform()
            axes.plot([_BEYOND], [height], transform=transform, clip_on=False, **look)


def _label_infinity(axes: Axes) -> None:
    axes.annotate(
        "∞",
        (_BEYOND, 0.0),
        xycoords="axes fraction",
        xytext=(0, -3),
        textcoords="offset points",
        annotation_clip=False,
        ha="center",
        va="top",
        fontsize=11,
        color=INK,
    )


def _draw_legend(figure: Figure, styles: dict[str, Style]) -> None:
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linestyle": "none", "markersize": 8}
    handles = [
        Line2D([], [], color=color, marker=marker, label=printable(name), **look)
        for name, (color, marker) in styles.items()
    ]
    handles.append(
        Line2D([], [], color=INK, marker="o", markerfacecolor="white", label="hollow: off", **look)
    )
    legend = figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
    )
    for entry in legend.get_texts():
        entry.set_parse_math(False)


def _ink_on(color: str) -> str:
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue >= _BRIGHT else "white"
