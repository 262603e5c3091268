"""Each layer's shares of effective parameters and its prior precisions, as figures.

Colours are the Okabe-Ito set, which people with the common colour-vision deficiencies can tell
apart; a marker per path says the same without colour. Figures are as wide as a phone shows them
in legible letters; names stand above the bars, so that they take no width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from symlearn.report.rule import UNDECIDED
from symlearn.report.table import percent, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from symlearn.report.structure import LayerStructure, StructureReport

DPI = 150
"""Resolution of saved bitmaps."""

WIDTH = 3.9
"""Width of a figure with one panel, in inches."""

INK, FAINT, PAPER = "#222222", "#C8C8C8", "#FFFFFF"
"""Colours of text, of grids and of the ground; a page puts its own in their place."""


MIDDLE = 0.1
"""Where the middle of a bar is in its row; rows are 1 apart."""


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
    "emlp": Style("#882255", ">"),
}
_ON_BRIGHT, _ON_DARK = "#1F1F1F", "#FDFDFD"  # a bar's number, whatever the ground of the page
_BRIGHT = 140  # luminance (of 255) from which a bar's number is dark
_NAME = -0.36  # where names are, above the bars
_BAR = 0.5  # height of a bar
_SPREAD = 0.4  # height over which the markers of one layer spread, so that equal ones both show
_LABELLED = 0.12  # shares from here on are wide enough to carry their number
_BEYOND = 1.05  # where infinity is, in widths of the axes
_HOLLOW = "hollow: off"
_MANY = 12  # rows from which the horizontal axis is labelled at both ends
_LONGEST = 34  # letters of a name that fit above a bar, beside a verdict


def draw(report: StructureReport) -> Figure:
    """Draw relative effective parameters (bars) beside prior precisions (markers).

    Args:
        report: The report to draw. Groups outside the relaxed layers are left out.

    Returns:
        A figure that belongs to no pyplot state.
    """
    return _draw(report, [_draw_shares, _draw_precisions])


def draw_shares(report: StructureReport) -> Figure:
    """Draw relative effective parameters: a stacked bar and the verdict per layer.

    Args:
        report: The report to draw.
    """
    return _draw(report, [_draw_shares])


def draw_precisions(report: StructureReport) -> Figure:
    """Draw prior precisions on a log axis: a marker per path, hollow where it is off.

    Args:
        report: The report to draw.
    """
    return _draw(report, [_draw_precisions])


Panel = Callable[["Axes", "StructureReport", dict[str, Style]], None]


def _draw(report: StructureReport, panels: Sequence[Panel]) -> Figure:
    # Imported on use: matplotlib is slow to load and may write its font cache when it does.
    from matplotlib.figure import Figure

    styles = styles_of(name for layer in report.layers for name in layer.paths)
    lines = legend_lines(styles)
    height = 0.8 + 0.2 * lines + 0.52 * max(len(report.layers), 1)
    figure = Figure(figsize=(WIDTH * len(panels), height), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        name_rows(axes, [layer.name for layer in report.layers])
        panel(axes, report, styles)
    draw_legend(figure, styles, hollow=_draw_precisions in panels)
    return figure


def styles_of(paths: Iterable[str]) -> dict[str, Style]:
    """Give each path its own style, and paths of other makers the styles that are left.

    Args:
        paths: Names of paths, each any number of times.
    """
    names = list(dict.fromkeys(paths))
    free = [style for name, style in reversed(_STYLES.items()) if name not in names]
    others = [name for name in names if name not in _STYLES]
    pool = free or list(_STYLES.values())
    extra = {name: pool[index % len(pool)] for index, name in enumerate(others)}
    return {name: _STYLES.get(name) or extra[name] for name in names}


def set_up(axes: Axes, title: str) -> None:
    """Give axes a title, quiet ticks and no frame."""
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.tick_params(length=0, labelsize=9, colors=INK)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Make a row of height 1 per name, with the name at its top left."""
    axes.set_yticks([row + _NAME for row in range(len(names))])
    axes.set_yticklabels([short(name) for name in names], parse_math=False, ha="left")
    axes.tick_params(axis="y", pad=0)
    axes.tick_params(axis="x", labeltop=len(names) > _MANY)
    for label in axes.get_yticklabels():
        label.set_verticalalignment("center_baseline")
    axes.set_ylim(max(len(names), 1) - 0.5, -0.55)


def short(name: str) -> str:
    """A name that fits above a bar; of a longer one the middle is left out."""
    shown = printable(name)
    if len(shown) <= _LONGEST:
        return shown
    return f"{shown[: _LONGEST // 2 - 1]}…{shown[-_LONGEST // 2 :]}"


# --- Shares ---


def _draw_shares(axes: Axes, report: StructureReport, styles: dict[str, Style]) -> None:
    set_up(axes, "Relative effective parameters, and verdict")
    percent_axis(axes)
    for row, layer in enumerate(report.layers):
        _draw_bar(axes, row + MIDDLE, layer, styles)
        write_right(axes, 1.0, row, layer.verdict)


def percent_axis(axes: Axes) -> None:
    """Let the horizontal axis go from 0 to 100%."""
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    axes.set_xlim(0.0, 1.0)
    axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])


def _draw_bar(axes: Axes, y: float, layer: LayerStructure, styles: dict[str, Style]) -> None:
    left = 0.0
    for name, path in layer.paths.items():
        share = path.relative_effective_params
        if not (math.isfinite(share) and share > 0.0):
            continue
        color = styles[name].color
        axes.barh(y, share, _BAR, left, color=color, edgecolor=PAPER, linewidth=0.8)
        if share >= _LABELLED:
            _write(axes, left + share / 2, y, percent(share), ink_on(color))
        left += share
    if left == 0.0:
        known = all(math.isfinite(x.relative_effective_params) for x in layer.paths.values())
        axes.barh(y, 1.0, _BAR, color="none", edgecolor=FAINT, linewidth=0.8)
        _write(axes, 0.5, y, "no effective parameters" if known else "not measured", INK)


def _write(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    axes.text(x, y, text, ha="center", va="center_baseline", fontsize=9, color=color)


def write_right(axes: Axes, x: float, row: int, text: str) -> None:
    """Write a verdict or an outcome at the end of the line that names a row."""
    axes.text(
        x,
        row + _NAME,
        printable(text),
        ha="right",
        va="center_baseline",
        fontsize=9,
        fontstyle="italic" if text == UNDECIDED else "normal",
        fontweight="bold",
        color=INK,
        parse_math=False,
    )


def ink_on(color: str) -> str:
    """The colour of letters on a ground, "#rrggbb"."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return _ON_BRIGHT if 0.299 * red + 0.587 * green + 0.114 * blue >= _BRIGHT else _ON_DARK


# --- Precisions ---


def _draw_precisions(axes: Axes, report: StructureReport, styles: dict[str, Style]) -> None:
    set_up(axes, "Prior precision δ (high means off)")
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    rows = [row + MIDDLE for row in range(len(report.layers))]
    across = axes.get_yaxis_transform()
    axes.hlines(rows, 0.0, 1.0, transform=across, color=FAINT, linewidth=0.6, zorder=0.5)
    for row, layer in enumerate(report.layers):
        _draw_markers(axes, row + MIDDLE, layer, styles)
    deltas = [path.prior_precision for layer in report.layers for path in layer.paths.values()]
    axes.set_xlim(*_decades(deltas))
    if math.inf in deltas:
        _label_infinity(axes)


def _decades(deltas: Sequence[float]) -> tuple[float, float]:
    """Whole powers of ten around the precisions that have a place on the axis."""
    logs = [math.log10(delta) for delta in deltas if 0.0 < delta < math.inf]
    low, high = math.floor(min(logs, default=0.0)), math.ceil(max(logs, default=1.0))
    return 10.0 ** max(low, -300) / 1.5, 10.0 ** min(max(high, low + 1), 300) * 1.5


def _draw_markers(axes: Axes, y: float, layer: LayerStructure, styles: dict[str, Style]) -> None:
    step = _SPREAD / len(layer.paths)
    for index, (name, path) in enumerate(layer.paths.items()):
        height = y + step * (index - (len(layer.paths) - 1) / 2)
        color, marker = styles[name]
        look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 6.5}
        look |= {"markerfacecolor": color if path.on else PAPER, "markeredgewidth": 1.5}
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


# --- Legend ---


def _columns(labels: Sequence[str]) -> int:
    """Legend entries that fit beside each other in one panel."""
    return max(1, int(WIDTH / (0.35 + 0.085 * max(map(len, labels), default=1))))


def legend_lines(styles: dict[str, Style]) -> int:
    """Lines that the legend of some paths takes."""
    labels = [*map(printable, styles), _HOLLOW]
    return math.ceil(len(labels) / _columns(labels))


def draw_legend(figure: Figure, styles: dict[str, Style], *, hollow: bool) -> None:
    """Put the paths' styles above the panels.

    Args:
        figure: The figure.
        styles: Path name -> style.
        hollow: Whether to say what hollow markers are.
    """
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linestyle": "none", "markersize": 8}
    handles = [
        Line2D([], [], color=color, marker=marker, label=printable(name), **look)
        for name, (color, marker) in styles.items()
    ]
    if hollow:
        look |= {"color": INK, "marker": "o", "markerfacecolor": PAPER}
        handles.append(Line2D([], [], label=_HOLLOW, **look))
    legend = figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=_columns([*map(printable, styles), _HOLLOW]),
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
        columnspacing=1.2,
        labelcolor=INK,
    )
    for entry in legend.get_texts():
        entry.set_parse_math(False)
