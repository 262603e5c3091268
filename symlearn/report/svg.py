"""A figure as SVG inside a page: small, with alternative text, in the page's colours and font."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

from symlearn.report.plots import FAINT, INK, PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TAG = re.compile(r"<[^<>]*>")  # text and attributes hold no such brackets: they are escaped
_REFERENCE = re.compile(r'(href="#|url\(#)([^")]+)')
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", PAPER: "var(--card)"}


def inline(figure: Figure, alt: str, prefix: str) -> str:
    """Write a figure as an ``<svg>`` element.

    Text stays text, in the font of the page. Ids that nothing refers to are left out.

    Args:
        figure: The figure.
        alt: What the picture shows, for those who do not see it.
        prefix: Put before each id, so that the ids of several figures of a page differ.
    """
    # Imported on use: matplotlib is slow to load and may write its font cache when it does.
    from matplotlib import rc_context

    stream = io.StringIO()
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "symlearn"}):
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    drawn = stream.getvalue()
    drawn = drawn[drawn.index("<svg") :]  # without the XML prologue, which is no HTML
    drawn = re.sub(r"\s*<(metadata|style).*?</\1>", "", drawn, flags=re.DOTALL)
    used = {found[2] for tag in _TAG.findall(drawn) for found in _REFERENCE.finditer(tag)}
    drawn = _TAG.sub(lambda tag: _in_the_page(tag[0], prefix, used), drawn)
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)


def _in_the_page(tag: str, prefix: str, used: set[str]) -> str:
    """A tag in the colours and the font of the page, with ids that no other figure has."""

    def renamed(found: re.Match[str]) -> str:
        return f' id="{prefix}{found[1]}"' if found[1] in used else ""

    for color, variable in _VARIABLES.items():
        tag = re.sub(rf"(?i)(?<=: ){color}(?=[;\"])", variable, tag)
    tag = re.sub(r" font-family: [^;\"]*;?", "", tag)
    tag = re.sub(r' id="([^"]*)"', renamed, tag)
    return _REFERENCE.sub(rf"\1{prefix}\2", tag)
