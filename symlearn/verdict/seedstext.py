"""What several seeds say as rows of cells, and as plain text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from symlearn.report import rule, table
from symlearn.report.text import WIDTH, draw_lines

if TYPE_CHECKING:
    from symlearn.verdict.seedsreport import SeedsLayer, SeedsReport, Spread

TITLES = ("layer", "path", "on in", "relative γ/P", "smallest", "largest", "verdict", "seeds")
RIGHT = (False, False, True, True, True, True, False, False)
"""Headings, and whether a column is aligned to the right."""


def render(report: SeedsReport) -> str:
    """Draw the report as a text table.

    Args:
        report: The report to draw.
    """
    found = rows(report)
    lines = draw_lines(TITLES, found, RIGHT)
    ruler = "─" * max(len(line.rstrip()) for line in lines)
    n_head = len(lines) - len(found)
    head = [f"Seeds {', '.join(map(str, report.seeds))}", "═" * len(ruler)]
    facts = "   ".join(f"{name}: {value}" for name, value in summary(report))
    body = [*lines[:n_head], ruler, *lines[n_head:], ruler]
    drawn = [*head, facts, "", *body, "", *textwrap.wrap(rule.describe_seeds(), WIDTH)]
    return "\n".join(line.rstrip() for line in drawn)


def summary(report: SeedsReport) -> list[tuple[str, str]]:
    """List the facts of the fits as pairs of a label and a text.

    Args:
        report: The report to show.
    """
    return [
        ("objective", report.objective),
        ("log evidence", f"{_spread(report.log_evidence, table.number)} nats"),
        ("data points", f"{report.n_data:,}"),
    ]


def rows(report: SeedsReport) -> list[list[str]]:
    """List the cells: a row per path of each layer.

    Args:
        report: The report to show.
    """
    n = len(report.seeds)
    return [row for layer in report.layers for row in _of_layer(layer, n)]


def _of_layer(layer: SeedsLayer, n: int) -> list[list[str]]:
    counts = {verdict: layer.verdicts.count(verdict) for verdict in dict.fromkeys(layer.verdicts)}
    seen = ", ".join(f"{count} of {n} {verdict}" for verdict, count in counts.items())
    if layer.disagreeing:
        seen += f" ({layer.disagreeing} by the check)"
    found = []
    for index, (name, share) in enumerate(layer.shares.items()):
        first = index == 0
        found.append(
            [
                *(table.printable(layer.name) if first else "", table.printable(name)),
                *(f"{layer.on[name]} of {n}", _spread(share, table.percent)),
                *(table.percent(share.low), table.percent(share.high)),
                *((layer.verdict, seen) if first else ("", "")),
            ]
        )
    return found


def _spread(spread: Spread, shown: Callable[[float], str]) -> str:
    if math.isnan(spread.deviation):
        return shown(spread.mean)
    return f"{shown(spread.mean)} ± {shown(spread.deviation)}"
