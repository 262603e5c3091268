"""The check as a figure: what evidence, operator and network say of each layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from symlearn.report import plots, rule
from symlearn.report.table import NONE, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from symlearn.report.check import SymmetryCheck
    from symlearn.report.structure import LayerStructure, StructureReport

_COLORS = {rule.BROKEN: "#D55E00", rule.KEPT: "#009E73"}
_WIDTH, _HEIGHT = 0.97, 0.58  # of a cell


def checked(report: StructureReport) -> list[tuple[LayerStructure, SymmetryCheck]]:
    """Each check with its layer."""
    return [(layer, check) for layer in report.layers for check in layer.checks]


def votes_of(check: SymmetryCheck) -> dict[str, tuple[str, str]]:
    """Name of each measurement -> its vote (`rule.compare`) and its number, as text."""
    numbers = (check.evidence_share, check.breaking_share, check.drop, check.drop_error)
    _, votes = rule.compare(*numbers)
    drop = NONE if math.isnan(check.drop) else f"{check.drop:.2g}"
    if math.isfinite(check.drop_error) and check.drop_error > 0.0:
        drop += f" ± {check.drop_error:.1g}"
    shown = {
        "evidence": NONE if math.isnan(check.evidence_share) else percent(check.evidence_share),
        "operator": NONE if math.isnan(check.breaking_share) else percent(check.breaking_share),
        "function": drop,
    }
    return {name: (vote, shown[name]) for name, vote in votes.items()}


def draw(report: StructureReport) -> Figure:
    """Draw a row per layer: three votes on whether its free paths break translations.

    Args:
        report: A report with checks.
    """
    from matplotlib.figure import Figure

    rows = checked(report)
    figure = Figure(figsize=(plots.WIDTH, 0.9 + 0.62 * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots()
    plots.set_up(axes, "Do free paths break translations?")
    plots.name_rows(axes, [layer.name for layer, _ in rows])
    axes.set_xlim(0.0, 3.0)
    axes.set_xticks([0.5, 1.5, 2.5], ["evidence", "operator", "network"])
    for row, (_, check) in enumerate(rows):
        for column, (vote, shown) in enumerate(votes_of(check).values()):
            _draw_cell(axes, column, row, vote, shown)
        plots.write_right(axes, 3.0, row, check.outcome)
    return figure


def _draw_cell(axes: Axes, column: int, row: int, vote: str, shown: str) -> None:
    color = _COLORS.get(vote)
    y, middle = row + plots.MIDDLE, column + 0.5
    edge = plots.PAPER if color else plots.FAINT
    left = middle - _WIDTH / 2
    axes.barh(y, _WIDTH, _HEIGHT, left, color=color or "none", edgecolor=edge, linewidth=0.8)
    ink = plots.ink_on(color) if color else plots.INK
    word = "no vote" if color is None else vote
    look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": ink}
    axes.text(middle, y - 0.1, word, fontsize=9, **look)
    axes.text(middle, y + 0.15, shown, fontsize=8, **look)
