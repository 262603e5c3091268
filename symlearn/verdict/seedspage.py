"""What several seeds say as a figure and as an HTML page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from symlearn.report import html, markup, plots, rule
from symlearn.report.markup import Cell, Drawing, Section
from symlearn.report.table import percent, printable
from symlearn.verdict import seedstext

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from symlearn.report import StructureReport
    from symlearn.verdict.seedsreport import SeedsLayer, SeedsReport

_HEIGHT, _GAP = 0.17, 0.03  # of the bar of one path, and between two
_TITLE = "Spread over seeds"


def render(report: SeedsReport, best: StructureReport | None = None) -> str:
    """Write the report as a complete page.

    Args:
        report: The report to write.
        best: Report of one seed, whose sections follow.
    """
    parts = [_section(report)]
    if best is not None:
        word = "The sections from here on are those of one seed."
        parts += [Section("One of the seeds", (markup.paragraph(word),)), *html.sections(best)]
    seeds = ", ".join(map(str, report.seeds))
    return html.page(f"Structure report of seeds {seeds}", parts)


def _section(report: SeedsReport) -> Section:
    kinds = ["number" if right else "word" for right in seedstext.RIGHT]
    titles = [Cell(text, kind) for text, kind in zip(seedstext.TITLES, kinds, strict=True)]
    found = seedstext.rows(report)
    verdict = seedstext.TITLES.index("verdict")
    rows = [
        [
            Cell(text, kind, html.badge_of(text) if column == verdict else "")
            for column, (text, kind) in enumerate(zip(row, kinds, strict=True))
        ]
        for row in found
    ]
    return Section(
        _TITLE,
        (
            markup.paragraph(rule.describe_seeds()),
            (Drawing(draw(report), _words(report)),),
            markup.facts(seedstext.summary(report)),
            markup.table(titles, rows, ["first" if row[0] else "" for row in found]),
        ),
    )


def _words(report: SeedsReport) -> str:
    rows = [
        f"{printable(layer.name)}: "
        + ", ".join(
            f"{printable(name)} {percent(share.low)} to {percent(share.high)}, mean "
            f"{percent(share.mean)}"
            for name, share in layer.shares.items()
        )
        + f", verdict {printable(layer.verdict)}"
        for layer in report.layers
    ]
    return f"Relative effective parameters of {len(report.seeds)} seeds. {'; '.join(rows)}."


def draw(report: SeedsReport) -> Figure:
    """Draw a bar per path and layer as long as its mean share, and a line over its range.

    Args:
        report: The report to draw.

    Returns:
        A figure that belongs to no pyplot state.
    """
    # Imported on use: matplotlib is slow to load and may write its font cache when it does.
    from matplotlib.figure import Figure

    styles = plots.styles_of(name for layer in report.layers for name in layer.shares)
    most = max((len(layer.shares) for layer in report.layers), default=1)
    row = max(0.52, 0.3 + 0.12 * most)  # inches
    height = 0.8 + 0.2 * plots.legend_lines(styles) + row * max(len(report.layers), 1)
    figure = Figure(figsize=(plots.WIDTH, height), layout="constrained")
    axes = figure.subplots()
    plots.set_up(axes, "Relative effective parameters: mean and range")
    plots.name_rows(axes, [layer.name for layer in report.layers])
    plots.percent_axis(axes)
    axes.grid(axis="x", color=plots.FAINT, linewidth=0.6)
    for index, layer in enumerate(report.layers):
        _draw_layer(axes, index, layer, styles)
        plots.write_right(axes, 1.0, index, layer.verdict)
    plots.draw_legend(figure, styles, hollow=False)
    return figure


def _draw_layer(axes: Axes, row: int, layer: SeedsLayer, styles: dict[str, plots.Style]) -> None:
    step = min(_HEIGHT + _GAP, 0.6 / len(layer.shares))
    for index, (name, share) in enumerate(layer.shares.items()):
        if not math.isfinite(share.mean):
            continue
        y = row + plots.MIDDLE + step * (index - (len(layer.shares) - 1) / 2)
        axes.barh(y, share.mean, step * 0.85, color=styles[name].color, linewidth=0)
        axes.plot([share.low, share.high], [y, y], color=plots.INK, linewidth=1.4, marker="|")
