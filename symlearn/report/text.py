"""The report as plain text for a terminal or a log: no colour, a stable width, no cut numbers."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from symlearn.report import checks, notes, rule, symmetry, table

if TYPE_CHECKING:
    from symlearn.report.structure import StructureReport

WIDTH = 100
"""Columns that `str(report)` aims for, whatever the terminal."""

HEADS = "outside the relaxed layers"
"""Heading of the groups that are not paths of a relaxed layer."""


def render(report: StructureReport, width: int = WIDTH) -> str:
    """Draw the report as a text table.

    A table that fits `width` names layer and verdict in columns; a narrower one gives each layer a
    heading line of its own. Whatever still does not fit makes the table wider: no cell is cut.

    Args:
        report: The report to draw.
        width: Columns to aim for.
    """
    body = _flat(report)
    if _width(body) > width:
        body = _stacked(report)
    span = max(width, 40)
    head = "Structure report"
    lines = [head, "═" * max(_width(body), len(head)), *_summary(report, span), "", *body, ""]
    said = [rule.describe(), "The gain ranks paths; it is not a Bayes factor."]
    said += [f"Warning: {warning}" for warning in notes.of_fit(report)]
    lines += [line for note in said for line in textwrap.wrap(note, span)]
    lines += _checks(report, span)
    lines += [line for one in symmetry.tables(report.symmetry) for line in ["", *draw_table(one)]]
    return "\n".join(line.rstrip() for line in lines)


def draw_table(drawn: symmetry.Drawn) -> list[str]:
    """A table of extracted symmetry under its title.

    Args:
        drawn: The table.
    """
    lines = draw_lines(drawn.titles, drawn.rows, drawn.numbers)
    return [drawn.title, *(line.rstrip() for line in lines)]


def draw_lines(
    titles: Sequence[str], body: Sequence[Sequence[str]], right: Sequence[bool]
) -> list[str]:
    """Lay cells out in columns; one line per heading line, then one per row, all of equal width.

    Args:
        titles: Headings, of one or more lines.
        body: The rows' cells.
        right: Whether each column is aligned to the right.
    """
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    for title, is_right in zip(titles, right, strict=True):
        grid.add_column(
            Text(title), justify="right" if is_right else "left", no_wrap=True, vertical="bottom"
        )
    for row in body:
        grid.add_row(*(Text(text) for text in row))
    width = 2 * len(titles) + sum(map(_cells, zip(titles, *body, strict=True)))
    # Every setting that rich would otherwise guess from the terminal or the environment is fixed.
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=False,
        force_jupyter=False,
        color_system=None,
        legacy_windows=False,
        _environ={},
    )
    with console.capture() as capture:
        console.print(grid)
    return capture.get().splitlines()


def _summary(report: StructureReport, width: int) -> list[str]:
    facts = [f"{name}: {value}" for name, value in table.summary(report)]
    lines, current = [], ""
    for fact in facts:
        joined = f"{current}   {fact}" if current else fact
        if current and cell_len(joined) > width:
            lines.append(current)
            joined = fact
        current = joined
    # a fact may be too long for a line of its own
    return [part for line in [*lines, current] for part in _broken(line, width)]


def _broken(line: str, width: int) -> list[str]:
    if cell_len(line) <= width:
        return [line]
    return textwrap.wrap(
        line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _checks(report: StructureReport, width: int) -> list[str]:
    rows = checks.rows(report)
    if not rows:
        return []
    titles = [title.replace(" ", "\n", 1) for title, _ in checks.COLUMNS]
    lines = draw_lines(titles, rows, checks.NUMBERS)
    n_head = len(lines) - len(rows)
    drawn = _ruled(lines[:n_head], lines[n_head:])
    return ["", checks.TITLE, "", *drawn, "", *textwrap.wrap(rule.describe_check(), width)]


def _flat(report: StructureReport) -> list[str]:
    head, body = _drawn(report, table.COLUMNS)
    lines = [line for members in body for line in members]
    if report.heads:
        lines = [*lines[: -len(report.heads)], "", HEADS, *lines[-len(report.heads) :]]
    return _ruled(head, lines)


def _stacked(report: StructureReport) -> list[str]:
    head, body = _drawn(report, [column for column in table.COLUMNS if not column.of_layer])
    firsts = [row for row in table.rows(report) if row.first]
    lines: list[str] = []
    for row, members in zip(firsts, body, strict=True):
        lines += [""] * bool(lines) + [_heading(row)] + [f"  {line}" for line in members]
    return _ruled([f"  {line}" for line in head], lines)


def _drawn(
    report: StructureReport, columns: Sequence[table.Column]
) -> tuple[list[str], list[list[str]]]:
    """Draw some columns; return the heading's lines, and the rows' lines by layer or group."""
    rows = table.rows(report)
    lines = draw_lines(
        [column.title.replace(" ", "\n", 1) for column in columns],
        [[table.cell(column, row) for column in columns] for row in rows],
        [column.is_number for column in columns],
    )
    n_head = len(lines) - len(rows)
    body: list[list[str]] = []
    for row, line in zip(rows, lines[n_head:], strict=True):
        if row.first:
            body.append([])
        body[-1].append(line)
    return lines[:n_head], body


def _ruled(head: list[str], body: list[str]) -> list[str]:
    ruler = "─" * _width([*head, *body])
    return [*head, ruler, *body, ruler]


def _heading(row: table.Row) -> str:
    of_layer = [column for column in table.COLUMNS if column.of_layer]
    name, verdict, agreement = (column.cell(row) for column in of_layer)
    if row.path is None:
        return f"{name}: {HEADS}"
    return f"{name}: {verdict}" + (f"  (agreement {agreement})" if agreement != table.NONE else "")


def _cells(column: Sequence[str]) -> int:
    return max(cell_len(line) for text in column for line in text.split("\n"))


def _width(lines: Sequence[str]) -> int:
    return max((cell_len(line.rstrip()) for line in lines), default=0)
