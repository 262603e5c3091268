"""Loss and log evidence epoch by epoch, as figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from symlearn.report import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from symlearn.report.background import Epoch
    from symlearn.report.structure import StructureReport

_FIT, _OCCAM = "#0072B2", "#E69F00"
_HEIGHT = 2.8
_LATE = 0.25  # share of the evidence steps that may lie below the axes: the first are far below


class Evidence(NamedTuple):
    """The log evidence at one time.

    Attributes:
        epoch: After which epoch.
        total: Log evidence in nats.
        fit: Its first part, the log likelihood at the weights, in nats.
    """

    epoch: int
    total: float
    fit: float

    @property
    def occam(self) -> float:
        """What is taken off the fit, in nats: the price of the weights that the data determine.

        ``1/2 sum_g [delta_g ||theta_g||^2 + sum_i log(1 + lambda_i / delta_g)]``
        """
        return self.fit - self.total


def measured(report: StructureReport) -> list[Evidence]:
    """The evidence steps whose numbers are finite, and the evidence of the fitted network."""
    found = [Evidence(e.epoch, e.log_evidence, e.log_likelihood) for e in report.history]
    last, fit = report.meta.get("epochs"), report.meta.get("log_likelihood")
    if found and isinstance(last, int) and isinstance(fit, float):
        found.append(Evidence(last, report.log_evidence, fit))
    return [one for one in found if math.isfinite(one.total) and math.isfinite(one.fit)]


def draw_evidence(report: StructureReport) -> Figure:
    """Draw the log evidence and its parts, the fit to the data and the Occam factor between them.

    Args:
        report: A report with a history (`measured`).
    """
    figure, axes = _start("Log evidence and its parts, nats per data point")
    found, n = measured(report), max(report.n_data, 1)
    epochs = [one.epoch for one in found]
    fit = [one.fit / n for one in found]
    evidence = [one.total / n for one in found]
    look: dict[str, Any] = {"marker": ".", "markersize": 4, "linewidth": 1.4}
    axes.fill_between(epochs, evidence, fit, color=_OCCAM, alpha=0.25, label="Occam factor", lw=0)
    axes.plot(epochs, fit, color=_FIT, label="fit: log likelihood", **look)
    axes.plot(epochs, evidence, color=plots.INK, label="log evidence", **look)
    low = sorted(evidence)[int(_LATE * len(evidence))]
    high = max(fit)
    margin = 0.08 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)
    _mark_changes(axes, report.history)
    return figure


def draw_loss(report: StructureReport) -> Figure:
    """Draw the training loss, on a log axis where it is positive.

    Args:
        report: A report with a history.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure, axes = _start("Training loss: negative log likelihood, nats")
    known = [step for step in report.history if math.isfinite(step.train_nll)]
    losses = [step.train_nll for step in known]
    axes.plot([step.epoch for step in known], losses, color=plots.INK, linewidth=1.4, label="loss")
    if losses and min(losses) > 0.0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    _mark_changes(axes, report.history)
    return figure


def _start(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(plots.WIDTH, _HEIGHT), layout="constrained")
    axes = figure.subplots()
    plots.set_up(axes, title)
    axes.grid(color=plots.FAINT, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("epoch", fontsize=9, color=plots.INK)
    return figure, axes


def _mark_changes(axes: Axes, history: Sequence[Epoch]) -> None:
    """A line where paths were started or switched off, and the legend."""
    kinds = {"path started": ("grown", "--"), "path switched off": ("pruned", ":")}
    for label, (name, style) in kinds.items():
        for index, step in enumerate(step for step in history if getattr(step, name)):
            look: dict[str, Any] = {"color": plots.INK, "linewidth": 0.9, "linestyle": style}
            axes.axvline(step.epoch, label=None if index else label, zorder=0.8, **look)
    axes.legend(loc="best", frameon=False, fontsize=8.5, labelcolor=plots.INK)
