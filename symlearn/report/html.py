"""The report as one HTML page: inline style, inline pictures, no script and no network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from symlearn.report import (
    alt,
    checks,
    curves,
    kinds,
    markup,
    mosaic,
    notes,
    reliability,
    symmetry,
    table,
)
from symlearn.report.markup import Cell, Drawing, Section
from symlearn.report.rule import OFF, UNDECIDED
from symlearn.report.style import STYLE

if TYPE_CHECKING:
    from symlearn.report.structure import StructureReport

# The page declares that it loads nothing; a browser enforces it even where escaping failed.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_NAMES = 12  # names in one list


def render(report: StructureReport) -> str:
    """Write the report as a complete page.

    Args:
        report: The report to write.
    """
    return page("Structure report", sections(report))


def page(title: str, parts: Sequence[Section]) -> str:
    """A complete page.

    Args:
        title: Its title.
        parts: Its sections.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body><main>
<h1>{escape(title)}</h1>
{markup.draw(parts)}
</main></body>
</html>
"""


def sections(report: StructureReport) -> list[Section]:
    """The sections of a report; those that it does not hold are left out.

    Args:
        report: The report.
    """
    return [
        *_reading(report),
        *_layers(report),
        *_curves(report),
        *_check(report),
        *_symmetry(report),
        *_calibration(report),
        *_pictures(report),
        *_coverage(report),
        *_words(report),
        *_run(report),
    ]


def badge_of(verdict: str) -> str:
    """Class of the badge of a verdict."""
    return verdict if verdict in (OFF, UNDECIDED) else "present"


def drawing(kind: str, report: StructureReport) -> Drawing:
    """A figure of the report, by its name in `kinds.KINDS`."""
    found = kinds.kind_of(kind, report)
    return Drawing(found.draw(report), found.alt(report))


# --- What there is to know first ---


def _reading(report: StructureReport) -> Iterator[Section]:
    yield Section("How to read this report", (markup.paragraph(" ".join(notes.HOW_TO_READ)),))
    found = notes.warnings(report)
    if found:
        yield Section("Warnings", (markup.items(found, "warnings"),))


def _layers(report: StructureReport) -> Iterator[Section]:
    yield Section("Layers", ((drawing("shares", report), drawing("precisions", report)),))
    yield Section("The fit", (markup.facts(table.summary(report)),))
    yield Section("Paths", (_table(report),))


def _table(report: StructureReport) -> str:
    titles = [Cell(column.title, column.kind) for column in table.COLUMNS]
    rows = table.rows(report)
    classes = [("first " if r.first else "") + ("on" if r.facts.on else "off") for r in rows]
    cells = [[_cell(column, row) for column in table.COLUMNS] for row in rows]
    return markup.table(titles, cells, classes)


def _cell(column: table.Column, row: table.Row) -> Cell:
    classes = column.kind + (" of-layer" if column.of_layer else "")
    badge, part = "", None
    if column.kind == "verdict" and row.verdict is not None:
        badge = badge_of(row.verdict)
    if column.share is not None:
        share = column.share(row)
        part = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    return Cell(table.cell(column, row), classes, badge, part)


# --- Evidence ---


def _curves(report: StructureReport) -> Iterator[Section]:
    shown = [kind for kind in ("evidence", "loss") if kinds.KINDS[kind].has(report)]
    if not shown:
        return
    parts: list[str | tuple[Drawing, ...]] = [tuple(drawing(kind, report) for kind in shown)]
    if "evidence" in shown:
        last = curves.measured(report)[-1]
        total, fit, occam = (f"{value:,.1f}" for value in (last.total, last.fit, last.occam))
        text = (
            f"After epoch {last.epoch} the log evidence was {total} nats: {fit} for the fit to the "
            f"data, less an Occam factor of {occam} for the weights that the data determine."
        )
        parts.append(markup.paragraph(text, "note"))
    changes = [
        f"Epoch {step.epoch}: {', '.join(map(table.printable, paths))} {what}."
        for step in report.history
        for paths, what in ((step.grown, "started"), (step.pruned, "switched off"))
        if paths
    ]
    if changes:
        parts.append(markup.items(changes, "changes"))
    yield Section("Evidence and loss", tuple(parts))


def _check(report: StructureReport) -> Iterator[Section]:
    rows = checks.rows(report)
    if not rows:
        return
    drawn = markup.plain_table([title for title, _ in checks.COLUMNS], rows, checks.NUMBERS)
    yield Section(checks.TITLE, ((drawing("check", report),), drawn))


def _symmetry(report: StructureReport) -> Iterator[Section]:
    parts: list[str] = []
    for one in symmetry.tables(report.symmetry):
        parts += [markup.heading(one.title)]
        parts += [markup.plain_table(one.titles, one.rows, one.numbers)]
    if parts:
        yield Section(symmetry.TITLE, tuple(parts))


def _calibration(report: StructureReport) -> Iterator[Section]:
    drawn = [Drawing(reliability.draw([one]), alt.calibration([one])) for one in report.calibration]
    if drawn:
        yield Section("Calibration", (tuple(drawn),))


# --- Weights ---


def _pictures(report: StructureReport) -> Iterator[Section]:
    if not report.pictures:
        return
    layers = dict.fromkeys(picture.layer for picture in report.pictures)
    drawn = []
    for layer in layers:
        found = tuple(picture for picture in report.pictures if picture.layer == layer)
        drawn.append(Drawing(mosaic.draw(found), alt.pictures(found)))
    left_out = [layer.name for layer in report.layers if layer.name not in layers]
    note = (
        "Red is positive, blue negative, white zero; each picture has a scale of its own. Filters "
        "are those of the largest norm. Of a path without filters: what the output channels with "
        "the largest response read from one input channel, where they read most, and what they "
        "write in answer. Large maps are averaged to a smaller size."
    )
    if left_out:
        note += f" Without a picture: {table.listed(left_out, _NAMES)}."
    yield Section("Learned filters and maps", (markup.paragraph(note, "note"), tuple(drawn)))


def _coverage(report: StructureReport) -> Iterator[Section]:
    if not report.coverage:
        return
    rows = [
        [
            Cell(group.kind),
            Cell(table.count(group.n_params), "number"),
            Cell(group.reason),
            Cell(table.listed(group.names, _NAMES), "name list"),
        ]
        for group in report.coverage
    ]
    titles = [Cell("curvature"), Cell("parameters", "number"), Cell("why"), Cell("tensors", "name")]
    note = (
        "Fixed parameters have no curvature and no prior: the evidence takes them as given. Those "
        "of paths that are off are among them. Diagonal ones have the diagonal of their curvature "
        "only."
    )
    parts = (markup.table(titles, rows), markup.paragraph(note, "note"))
    yield Section("What the curvature covers", parts)


# --- Words, and the run ---


def _words(report: StructureReport) -> Iterator[Section]:
    parts = [markup.glossary(table.glossary())]
    if checks.rows(report):
        parts.append(markup.glossary(checks.glossary()))
    meanings = {k: v for one in symmetry.tables(report.symmetry) for k, v in one.columns}
    if meanings:
        parts.append(markup.glossary(meanings.items()))
    yield Section("Words and rules", tuple(parts))


def _run(report: StructureReport) -> Iterator[Section]:
    if report.config:
        yield Section("Configuration", (markup.facts(_printed(report.config)),))
    if report.environment:
        yield Section("Environment", (markup.facts(_printed(report.environment)),))


def _printed(facts: dict[str, str] | dict[str, str | float | int | None]) -> list[tuple[str, str]]:
    return [(table.printable(name), table.printable(str(value))) for name, value in facts.items()]
