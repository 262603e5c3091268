"""Pieces of a page: sections, tables, lists and figures, with all text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from symlearn.report import svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says.
        classes: Its classes.
        badge: Class of a badge around the text, or empty.
        part: Share of the cell that a bar behind the number fills, or None.
    """

    text: str
    classes: str = "word"
    badge: str = ""
    part: float | None = None


@dataclass(frozen=True)
class Drawing:
    """A figure and what it shows, in words."""

    figure: Figure
    alt: str


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        title: Its heading.
        parts: HTML below the heading, and pictures.
    """

    title: str
    parts: tuple[str | tuple[Drawing, ...], ...]


def draw(sections: Iterable[Section]) -> str:
    """The sections as HTML; each picture of the page gets ids of its own."""
    drawn, n = [], 0
    for section in sections:
        body = []
        for part in section.parts:
            if isinstance(part, str):
                body.append(part)
                continue
            figures = [
                f"<figure>{svg.inline(drawing.figure, drawing.alt, f'f{n + index}-')}</figure>"
                for index, drawing in enumerate(part)
            ]
            n += len(part)
            body.append(f'<div class="figures">{lines(figures)}</div>')
        heading = f"<h2>{escape(section.title)}</h2>"
        drawn.append(f"<section>\n{heading}{lines(body)}</section>")
    return "\n".join(drawn)


def lines(parts: Iterable[str]) -> str:
    """Each part on a line of its own."""
    return "\n" + "\n".join(parts) + "\n"


def heading(text: str) -> str:
    """A heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str, classes: str = "") -> str:
    """A paragraph."""
    return f'<p class="{classes}">{escape(text)}</p>' if classes else f"<p>{escape(text)}</p>"


def items(texts: Iterable[str], classes: str) -> str:
    """A list."""
    return f'<ul class="{classes}">{lines(f"<li>{escape(text)}</li>" for text in texts)}</ul>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Facts beside each other, each with its name above."""
    drawn = [f"<div>{_pair(*pair)}</div>" for pair in pairs]
    return f'<dl class="card facts">{lines(drawn)}</dl>'


def glossary(pairs: Iterable[tuple[str, str]]) -> str:
    """Words and what they mean."""
    return f'<dl class="card glossary">{lines(_pair(*pair) for pair in pairs)}</dl>'


def _pair(title: str, text: str) -> str:
    return f"<dt>{escape(title)}</dt><dd>{escape(text)}</dd>"


def table(
    titles: Sequence[Cell], rows: Iterable[Sequence[Cell]], classes: Sequence[str] = ()
) -> str:
    """A table. On a narrow screen each row is a card, whose cells carry their column's title.

    Args:
        titles: Headings.
        rows: The cells.
        classes: Classes of each row, or none.
    """
    drawn = list(rows)
    kinds = classes or [""] * len(drawn)
    head = "".join(f'<th scope="col" class="{t.classes}">{escape(t.text)}</th>' for t in titles)
    body = [
        f'<tr class="{kind}">{"".join(map(_cell, titles, row))}</tr>'
        for kind, row in zip(kinds, drawn, strict=True)
    ]
    return (
        f'<div class="card"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{lines(body)}</tbody>\n</table></div>"
    )


def plain_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[bool]
) -> str:
    """A table of words and numbers; a row whose first cell is not empty begins something new.

    Args:
        titles: Headings.
        rows: The cells.
        numbers: Whether each column is one of numbers.
    """
    kinds = ["number" if is_number else "word" for is_number in numbers]

    def cells(texts: Sequence[str]) -> list[Cell]:
        return [Cell(text, kind) for text, kind in zip(texts, kinds, strict=True)]

    return table(cells(titles), map(cells, rows), ["first" if row[0] else "" for row in rows])


def _cell(title: Cell, cell: Cell) -> str:
    text = escape(cell.text)
    if cell.badge and text:
        text = f'<span class="badge {cell.badge}">{text}</span>'
    style = "" if cell.part is None else f' style="--part: {cell.part:.1%}"'
    classes = cell.classes if text else f"{cell.classes} empty"
    return f'<td class="{classes}" data-title="{escape(title.text)}"{style}>{text}</td>'
