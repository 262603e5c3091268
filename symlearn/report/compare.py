"""Several reports beside each other: which layer wants what on which task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from symlearn.report import table
from symlearn.report.text import draw_lines

if TYPE_CHECKING:
    from symlearn.report.structure import LayerStructure, StructureReport

_BAR = 10  # characters of a full bar
_DIFFERS = "*"
_FACTS = ("objective", "log evidence", "data points", "effective parameters")


def side_by_side(reports: Mapping[str, StructureReport]) -> str:
    """Draw reports beside each other: per layer and path the relative share, per layer the verdict.

    Layers are matched by name; one that a report does not have is shown as a dash. A star marks the
    layers whose verdicts differ.

    Args:
        reports: Title (such as the task) -> report, in the order to show.

    Raises:
        ValueError: If there is no report.
    """
    if not reports:
        raise ValueError("side_by_side needs at least one report, got none")
    body = [row for name in _layers(reports) for row in _rows(name, reports)]
    titles = ["layer", "path"]
    for title in reports:
        titles += [f"{table.printable(title)}\nrelative γ/P", "verdict"]
    lines = draw_lines([*titles, ""], body, [False] * (len(titles) + 1))
    ruler = "─" * max(len(line.rstrip()) for line in lines)
    n_head = len(lines) - len(body)
    drawn = [*lines[:n_head], ruler, *lines[n_head:], ruler, *_footer(reports)]
    if any(row[-1] for row in body):
        drawn += ["", f"{_DIFFERS} the verdicts differ"]
    return "\n".join(line.rstrip() for line in drawn)


def _layers(reports: Mapping[str, StructureReport]) -> list[str]:
    return list(dict.fromkeys(layer.name for report in reports.values() for layer in report.layers))


def _rows(name: str, reports: Mapping[str, StructureReport]) -> list[list[str]]:
    layers = [_find(report, name) for report in reports.values()]
    paths = list(dict.fromkeys(path for layer in layers if layer for path in layer.paths))
    verdicts = {layer.verdict for layer in layers if layer}
    rows = []
    for index, path in enumerate(paths):
        first = index == 0
        row = [table.printable(name) if first else "", table.printable(path)]
        for layer in layers:
            row += [_share(layer, path), _verdict(layer) if first else ""]
        rows.append([*row, _DIFFERS if first and len(verdicts) > 1 else ""])
    return rows


def _find(report: StructureReport, name: str) -> LayerStructure | None:
    return next((layer for layer in report if layer.name == name), None)


def _share(layer: LayerStructure | None, path: str) -> str:
    if layer is None or path not in layer.paths:
        return table.NONE
    share = layer.paths[path].relative_effective_params
    filled = round(_BAR * min(max(share, 0.0), 1.0)) if math.isfinite(share) else 0
    return f"{'█' * filled}{'░' * (_BAR - filled)} {table.percent(share):>6}"


def _verdict(layer: LayerStructure | None) -> str:
    return table.NONE if layer is None else table.printable(layer.verdict)


def _footer(reports: Mapping[str, StructureReport]) -> list[str]:
    facts = [dict(table.summary(report)) for report in reports.values()]
    body = [[name, *(fact[name] for fact in facts)] for name in _FACTS]
    titles = ["", *(table.printable(title) for title in reports)]
    lines = draw_lines(titles, body, [False] * len(titles))
    return lines[len(lines) - len(body) :] if len(reports) == 1 else lines
