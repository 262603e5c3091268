"""The reliability diagram: accuracy against confidence, one panel for each predictor.

Bars are the accuracy of each bin; the hatched part is its distance to the diagonal, on which
probabilities mean what they say. Below, how many samples each bin holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from symlearn.report import plots
from symlearn.report.table import number, percent, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from symlearn.report.calibration import Calibration, CalibrationBin

_BAR, _GAP = "#0072B2", "#D55E00"
_TICKS = [0.0, 0.25, 0.5, 0.75, 1.0]


def draw(found: Sequence[Calibration]) -> Figure:
    """Draw the diagram.

    Args:
        found: At least one calibration, in the order of the panels.

    Returns:
        A figure that belongs to no pyplot state.

    Raises:
        ValueError: If there is none.
    """
    # Imported on use, as in `plots`.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not found:
        raise ValueError("a reliability diagram needs at least one calibration, got none")
    figure = Figure(
        figsize=(0.8 + 3.6 * len(found), 4.6), layout=ConstrainedLayoutEngine(wspace=0.08)
    )
    axes = figure.subplots(
        2, len(found), sharex=True, sharey="row", squeeze=False, height_ratios=[3.2, 1.0]
    )
    for column, one in enumerate(found):
        first = column == 0
        filled = [part for part in one.bins if part.n_data]
        _draw_accuracy(axes[0, column], one, filled, first)
        _draw_counts(axes[1, column], one, filled, first)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, fontsize=9,
        labelcolor=plots.INK,
    )  # fmt: skip
    return figure


def _set_up(axes: Axes) -> None:
    axes.tick_params(length=0, labelsize=9, colors=plots.INK)
    axes.grid(color=plots.FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.set_xlim(0.0, 1.0)
    axes.set_xticks(_TICKS, [f"{tick:.0%}" for tick in _TICKS])
    axes.tick_params(axis="x", pad=7)


def _draw_accuracy(
    axes: Axes, one: Calibration, filled: Sequence[CalibrationBin], labelled: bool
) -> None:
    _set_up(axes)
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks(_TICKS, [f"{tick:.0%}" for tick in _TICKS])
    left = [part.lower for part in filled]
    widths = [part.upper - part.lower for part in filled]
    heights = [part.accuracy for part in filled]
    gaps = [part.confidence - part.accuracy for part in filled]
    look: dict[str, Any] = {"align": "edge", "linewidth": 0.8}
    axes.bar(left, heights, widths, color=_BAR, edgecolor="white", label="accuracy", **look)
    axes.bar(
        left, gaps, widths, heights, color="none", edgecolor=_GAP, hatch="////",
        label="confidence − accuracy", **look,
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], color=plots.INK, linewidth=1.0, linestyle="--", label="calibrated")
    axes.set_title(_title(one), fontsize=10, color=plots.INK, loc="left", parse_math=False)
    if labelled:
        axes.set_ylabel("accuracy", fontsize=9, color=plots.INK)


def _title(one: Calibration) -> str:
    return (
        f"{printable(one.predictor)}\n"
        f"ECE {percent(one.ece)}, NLL {number(one.nll)}, Brier {number(one.brier)}"
    )


def _draw_counts(
    axes: Axes, one: Calibration, filled: Sequence[CalibrationBin], labelled: bool
) -> None:
    _set_up(axes)
    left = [part.lower for part in filled]
    widths = [part.upper - part.lower for part in filled]
    shares = [part.n_data / one.n_data for part in filled]
    axes.bar(left, shares, widths, color=_BAR, edgecolor="white", align="edge", linewidth=0.8)
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([0.0, 0.5, 1.0], ["0%", "50%", "100%"])
    axes.set_xlabel("confidence", fontsize=9, color=plots.INK)
    if labelled:
        axes.set_ylabel("samples", fontsize=9, color=plots.INK)
