"""The report as one HTML page: inline style, inline figure, no script and no network."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from symlearn.report import checks, plots, reliability, table
from symlearn.report.rule import OFF, UNDECIDED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from symlearn.report.structure import StructureReport

_STYLE = """
:root { color-scheme: light; --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --bar: #cfe3f1; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f8fa; color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 96rem; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 1rem;
  overflow-x: auto; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; margin: 0; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
figure { margin: 0; text-align: center; }
figure svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; text-align: left; white-space: nowrap; }
th { color: var(--soft); white-space: normal; vertical-align: bottom;
  border-bottom: 2px solid var(--line); }
.number, .share { text-align: right; }
tr.first + tr.first td, tr:not(.first) + tr.first td { border-top: 1px solid var(--line); }
tr.off td:not(.of-layer) { color: var(--soft); }
td.share { background: linear-gradient(to right, var(--bar) var(--part), transparent var(--part))
  content-box no-repeat; min-width: 6rem; }
td.name { font-family: ui-monospace, monospace; }
.badge { border-radius: 1rem; padding: .1rem .6rem; font-weight: 600; }
.badge.present { background: #dff0e4; color: #14532d; }
.badge.undecided { background: #fff1cc; color: #6b4a00; }
.badge.off { background: #e8ebee; color: var(--soft); }
.glossary { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 0;
  font-size: .88rem; }
.glossary dt { font-weight: 600; }
.glossary dd { margin: 0; color: var(--soft); }
@media print { body { background: #fff; } .card { border: 0; padding: 0; } }
"""

# The page declares that it loads nothing; a browser enforces it even where escaping failed.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(report: StructureReport) -> str:
    """Write the report as a complete page.

    Args:
        report: The report to write.
    """
    facts = [f"<div>{_pair(*fact)}</div>" for fact in table.summary(report)]
    meanings = [_pair(*meaning) for meaning in table.glossary()]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>Structure report</title>
<style>{_STYLE}</style>
</head>
<body><main>
<h1>Structure report</h1>
<dl class="card facts">{_lines(facts)}</dl>
<h2>Layers</h2>
<figure class="card" role="img" aria-label="Effective parameters and prior precision per layer">
{_svg(plots.draw(report))}</figure>
{_calibration(report)}<h2>Paths</h2>
<div class="card">{_table(report)}</div>
<h2>Reading the table</h2>
<dl class="card glossary">{_lines(meanings)}</dl>
{_checks(report)}</main></body>
</html>
"""


def _pair(title: str, text: str) -> str:
    return f"<dt>{escape(title)}</dt><dd>{escape(text)}</dd>"


def _lines(parts: list[str]) -> str:
    return "\n" + "\n".join(parts) + "\n"


def _calibration(report: StructureReport) -> str:
    if not report.calibration:
        return ""
    figure = _svg(reliability.draw(report.calibration))
    label = "Accuracy against confidence for each predictor"
    return (
        f'<h2>Calibration</h2>\n<figure class="card" role="img" aria-label="{label}">\n'
        f"{figure}</figure>\n"
    )


def _checks(report: StructureReport) -> str:
    rows = checks.rows(report)
    if not rows:
        return ""
    kinds = ["number" if is_number else "word" for is_number in checks.NUMBERS]

    def line(cells: Sequence[str], tag: str) -> str:
        drawn = zip(kinds, cells, strict=True)
        return "".join(f'<{tag} class="{kind}">{escape(cell)}</{tag}>' for kind, cell in drawn)

    head = f"<thead><tr>{line([title for title, _ in checks.COLUMNS], 'th')}</tr></thead>"
    body = [f'<tr class="{"first" if row[0] else ""}">{line(row, "td")}</tr>' for row in rows]
    meanings = [_pair(*meaning) for meaning in checks.glossary()]
    return (
        f'<h2>{checks.TITLE}</h2>\n<div class="card"><table>\n{head}\n'
        f"<tbody>{_lines(body)}</tbody>\n</table></div>\n"
        f'<dl class="card glossary">{_lines(meanings)}</dl>\n'
    )


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    drawn = stream.getvalue()
    return drawn[drawn.index("<svg") :]  # without the XML prologue, which is no HTML


def _table(report: StructureReport) -> str:
    titles = [
        f'<th scope="col" class="{column.kind}">{escape(column.title)}</th>'
        for column in table.COLUMNS
    ]
    head = f"<thead><tr>{_lines(titles)}</tr></thead>"
    body = f"<tbody>{_lines([_row(row) for row in table.rows(report)])}</tbody>"
    return f"\n<table>\n{head}\n{body}\n</table>\n"


def _row(row: table.Row) -> str:
    classes = ("first " if row.first else "") + ("on" if row.facts.on else "off")
    cells = "".join(_cell(column, row) for column in table.COLUMNS)
    return f'<tr class="{classes}">{cells}</tr>'


def _cell(column: table.Column, row: table.Row) -> str:
    classes = column.kind + (" of-layer" if column.of_layer else "")
    text, style = escape(table.cell(column, row)), ""
    if column.kind == "verdict" and row.verdict is not None and text:
        kind = row.verdict if row.verdict in (OFF, UNDECIDED) else "present"
        text = f'<span class="badge {kind}">{text}</span>'
    if column.share is not None:
        share = column.share(row)
        part = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
        style = f' style="--part: {part:.1%}"'
    return f'<td class="{classes}"{style}>{text}</td>'
