"""The checks of a report as rows of cells, once for every renderer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from symlearn.report import rule, table

if TYPE_CHECKING:
    from symlearn.report.structure import LayerStructure, StructureReport

TITLE = "Check by independent measurements"

COLUMNS: tuple[tuple[str, str], ...] = (
    ("layer", "Name of the relaxed layer."),
    ("evidence share", "Relative γ/P of the paths that need not commute with translations."),
    ("operator commutes", "Share of the trained operator's squared norm that commutes with them."),
    ("free paths break", "Share of that norm in these paths' part that does not commute."),
    ("network without", "The path left out of the network for the row; all paths in the first."),
    ("LEE", "Local equivariance error of the network along x and y, mean square."),
    ("shift error", "Its change under whole-pixel shifts; 1 is that between two images."),
    ("check", "Whether evidence, operator and shift error agree, by the rule below."),
)
"""Headings and meanings; all but layer, path and check are numbers."""

NUMBERS = tuple(title not in ("layer", "network without", "check") for title, _ in COLUMNS)


def rows(report: StructureReport) -> list[list[str]]:
    """List the cells: a layer's own measurements, then the network without each of its paths.

    Args:
        report: The report to show; layers that were not checked are left out.
    """
    return [row for layer in report.layers for row in _of_layer(layer)]


def glossary() -> list[tuple[str, str]]:
    """List what each column means, then the rule, as pairs of a title and a text."""
    return [*COLUMNS, ("check rule", rule.describe_check())]


def _of_layer(layer: LayerStructure) -> list[list[str]]:
    found: list[list[str]] = []
    for check in layer.checks:
        shares = (check.evidence_share, check.commuting_share, check.breaking_share)
        first = [table.printable(layer.name), *(_share(share) for share in shares), table.NONE]
        found.append([*first, _number(check.lee), _number(check.shift_error), check.outcome])
        for removal in check.removals:
            numbers = [_number(removal.lee), _number(removal.shift_error)]
            found.append(["", "", "", "", table.printable(removal.paths), *numbers, ""])
    return found


def _share(value: float) -> str:
    return table.NONE if math.isnan(value) else table.percent(value)


def _number(value: float) -> str:
    return table.NONE if math.isnan(value) else table.number(value)
