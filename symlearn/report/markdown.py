"""The report as Markdown, for a README, an issue or a pull request (GitHub flavour)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from symlearn.report import checks, notes, symmetry, table

if TYPE_CHECKING:
    from symlearn.report.structure import StructureReport


def render(report: StructureReport) -> str:
    """Write the report as a heading, a list of facts, a table and a glossary.

    Args:
        report: The report to write.
    """
    facts = [f"- **{_escape(name)}**: {_escape(value)}" for name, value in table.summary(report)]
    facts += [f"- **warning**: {_escape(warning)}" for warning in notes.of_fit(report)]
    meanings = [f"- **{_escape(title)}**: {_escape(text)}" for title, text in table.glossary()]
    parts = [["# Structure report"], facts, _table(report), ["## Reading the table"], meanings]
    return (
        "\n\n".join("\n".join(part) for part in [*parts, *_checks(report), *_symmetry(report)])
        + "\n"
    )


def _checks(report: StructureReport) -> list[list[str]]:
    rows = [[_escape(cell) for cell in row] for row in checks.rows(report)]
    if not rows:
        return []
    titles = [_escape(title) for title, _ in checks.COLUMNS]
    ruler = ["---:" if is_number else ":---" for is_number in checks.NUMBERS]
    meanings = [f"- **{_escape(title)}**: {_escape(text)}" for title, text in checks.glossary()]
    return [[f"## {checks.TITLE}"], [_line(cells) for cells in [titles, ruler, *rows]], meanings]


def _symmetry(report: StructureReport) -> list[list[str]]:
    found: list[list[str]] = []
    meanings: dict[str, str] = {}
    for drawn in symmetry.tables(report.symmetry):
        ruler = ["---:" if is_number else ":---" for is_number in drawn.numbers]
        body = [[_escape(cell) for cell in row] for row in (drawn.titles, *drawn.rows)]
        found.append([f"### {_escape(drawn.title)}"])
        found.append([_line(cells) for cells in [body[0], ruler, *body[1:]]])
        meanings.update(drawn.columns)
    glossary = [f"- **{_escape(title)}**: {_escape(text)}" for title, text in meanings.items()]
    return [[f"## {symmetry.TITLE}"], *found, glossary] if found else []


def _table(report: StructureReport) -> list[str]:
    titles = [_escape(column.title) for column in table.COLUMNS]
    ruler = ["---:" if column.is_number else ":---" for column in table.COLUMNS]
    body = [[_cell(column, row) for column in table.COLUMNS] for row in table.rows(report)]
    return [_line(cells) for cells in [titles, ruler, *body]]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(column: table.Column, row: table.Row) -> str:
    text = table.cell(column, row)
    return _code(text) if column.kind == "name" and text not in ("", table.NONE) else _escape(text)


def _code(text: str) -> str:
    # A fence longer than any run of backticks inside; a pipe is escaped even in code (GFM tables).
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, pad = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", r"\|")


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~&#])", r"\\\1", text)
