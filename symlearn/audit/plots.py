"""The layerwise picture: what each module contributes to the Lie derivatives.

All in units of the network's own mean square: bars are signed shares, which add up to one, and dots
are mean squares of contributions, with standard errors over images. A dot beyond its bar is a
module whose contribution others cancel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from symlearn.audit.attribution import Attribution, Contribution
from symlearn.report.plots import DPI, FAINT, INK
from symlearn.report.table import number, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DPI", "draw"]

_COLOURS = {
    "Conv2d": "#0072B2",
    "Linear": "#E69F00",
    "attention": "#CC79A7",
    "activation": "#009E73",
    "norm": "#56B4E9",
    "pool": "#D55E00",
    "other": "#999999",
}
_ACTIVATIONS = ("relu", "gelu", "silu", "sigmoid", "tanh", "softmax", "swish", "elu")
_VISIBLE = 1e-3  # of the largest contribution of a table


def draw(tables: Sequence[Attribution], most: int) -> Figure:
    """Draw the tables side by side, a line per module in the order of the network.

    Args:
        tables: One per transformation, of the same network.
        most: Most modules drawn.

    Raises:
        ValueError: If there is no table, or no module to draw.
    """
    if not tables or most < 1:
        raise ValueError(
            f"there are {len(tables)} tables of modules and most={most}: audit with layers=True, "
            "and draw at least one module"
        )
    # Imported on use: matplotlib is slow to load and may write its font cache when it does.
    from matplotlib.figure import Figure

    shown = _shown(tables, most)
    rows = {row.module: row for row in tables[0].rows}
    height = 1.3 + 0.26 * max(len(shown), 1)
    figure = Figure(figsize=(3.2 + 2.6 * len(tables), height), layout="constrained")
    axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    axes[0].set_yticks(range(len(shown)))
    axes[0].set_yticklabels([_label(rows[name]) for name in shown], parse_math=False)
    axes[0].set_ylim(len(shown) - 0.5, -0.5)
    for table, ax in zip(tables, axes, strict=True):
        _draw_table(ax, table, shown)
    _draw_legend(figure, list(dict.fromkeys(_family(rows[name].kind) for name in shown)))
    return figure


def _shown(tables: Sequence[Attribution], most: int) -> list[str]:
    """Names of the modules with the largest contributions, in the order of the network."""
    size: dict[str, float] = {}
    for table in tables:
        largest = max((row.mean_square for row in table.measured), default=0.0)
        for row in table.measured:
            if largest > 0:
                size[row.module] = max(size.get(row.module, 0.0), row.mean_square / largest)
    visible = [name for name in size if size[name] >= _VISIBLE]
    kept = sorted(visible, key=lambda name: -size[name])[:most]
    return [row.module for row in tables[0].rows if row.module in kept]


def _label(row: Contribution) -> str:
    own = "" if row.part == "module" else " (own operations)"
    return printable((row.module or "network") + own)


def _family(kind: str) -> str:
    low = kind.lower()
    if kind in _COLOURS:
        return kind
    if "attention" in low:
        return "attention"
    if any(name in low for name in _ACTIVATIONS):
        return "activation"
    for family in ("norm", "pool"):
        if family in low:
            return family
    return "other"


def _draw_table(ax: Axes, table: Attribution, shown: Sequence[str]) -> None:
    ax.set_title(f"{table.transform}: LEE {number(table.mean_square)}", fontsize=10, color=INK)
    ax.set_xlabel("share", fontsize=8, color=INK)
    ax.tick_params(length=0, labelsize=8, colors=INK)
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[:].set_visible(False)
    ax.axvline(0.0, color=INK, linewidth=0.8)
    ax.margins(x=0.2)
    rows = {row.module: row for row in table.measured}
    unit = table.mean_square or 1.0
    for line, name in enumerate(shown):
        if name not in rows:
            continue
        row = rows[name]
        color = _COLOURS[_family(row.kind)]
        ax.barh(line, row.share, 0.66, color=color)
        spread = row.standard_error / unit if math.isfinite(row.standard_error) else 0.0
        look: dict[str, Any] = {"markersize": 3.5, "elinewidth": 0.8, "color": INK}
        ax.errorbar(row.mean_square / unit, line, xerr=spread, fmt="o", **look)
        _write(ax, f"{round(100 * row.share)}%", line)


def _write(ax: Axes, text: str, line: int) -> None:
    """A number at the right of a line."""
    ax.annotate(
        text,
        (1.0, line),
        xycoords=("axes fraction", "data"),
        annotation_clip=False,
        ha="right",
        va="center",
        fontsize=7,
        color=INK,
    )


def _draw_legend(figure: Figure, kinds: Sequence[str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = [Patch(color=_COLOURS[kind], label=kind) for kind in kinds]
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3.5, "color": INK}
    handles.append(Line2D([], [], label="mean square / LEE", **dot))
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=len(handles),
        frameon=False,
        fontsize=8,
    )
