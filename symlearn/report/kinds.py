"""The figures of a report by name, for `StructureReport.plot` and for the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from symlearn.report import alt, curves, mosaic, plots, reliability, votes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from symlearn.report.structure import StructureReport


class Kind(NamedTuple):
    """A figure of a report.

    Attributes:
        draw: Draws it.
        alt: Says it in words.
        has: Whether the report has what it shows.
        needs: What that is, for an error.
    """

    draw: Callable[[StructureReport], Figure]
    alt: Callable[[StructureReport], str]
    has: Callable[[StructureReport], bool]
    needs: str


def _always(report: StructureReport) -> bool:
    return True


KINDS: dict[str, Kind] = {
    "structure": Kind(plots.draw, alt.structure, _always, ""),
    "shares": Kind(plots.draw_shares, alt.shares, _always, ""),
    "precisions": Kind(plots.draw_precisions, alt.precisions, _always, ""),
    "evidence": Kind(
        curves.draw_evidence,
        alt.evidence,
        lambda report: bool(curves.measured(report)),
        "evidence steps in its history; only fits to the evidence have them",
    ),
    "loss": Kind(
        curves.draw_loss, alt.loss, lambda report: bool(report.history), "history of its fit"
    ),
    "check": Kind(
        votes.draw,
        alt.check,
        lambda report: bool(votes.checked(report)),
        "check; see FitResult.check",
    ),
    "pictures": Kind(
        lambda report: mosaic.draw(report.pictures),
        lambda report: alt.pictures(report.pictures),
        lambda report: bool(report.pictures),
        "pictures of weights; a fit makes them",
    ),
    "calibration": Kind(
        lambda report: reliability.draw(report.calibration),
        lambda report: alt.calibration(report.calibration),
        lambda report: bool(report.calibration),
        "section on calibration; see with_calibration",
    ),
}
"""Name -> figure."""


def kind_of(name: object, report: StructureReport) -> Kind:
    """The figure of a name, which the report has what it takes for.

    Raises:
        ValueError: If there is no such figure, or the report lacks what it shows.
    """
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"no figure {name!r} of a report; choose one of {list(KINDS)}")
    kind = KINDS[name]
    if not kind.has(report):
        raise ValueError(f"cannot draw {name!r}: the report has no {kind.needs}")
    return kind
