"""Alternative text: what the figures of a report show, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from symlearn.report import curves, mosaic, votes
from symlearn.report.table import number, percent, printable

if TYPE_CHECKING:
    from symlearn.report.background import Picture
    from symlearn.report.calibration import Calibration
    from symlearn.report.structure import StructureReport


def shares(report: StructureReport) -> str:
    """Relative effective parameters and verdicts."""
    rows = [
        f"{printable(layer.name)}: "
        + ", ".join(
            f"{printable(name)} {percent(path.relative_effective_params)}"
            for name, path in layer.paths.items()
        )
        + f", verdict {printable(layer.verdict)}"
        for layer in report.layers
    ]
    return _said("Bars of relative effective parameters per layer and path", rows)


def precisions(report: StructureReport) -> str:
    """Prior precisions."""
    rows = [
        f"{printable(layer.name)}: "
        + ", ".join(
            f"{printable(name)} {number(path.prior_precision)}{'' if path.on else ' (off)'}"
            for name, path in layer.paths.items()
        )
        for layer in report.layers
    ]
    return _said("Prior precisions per layer and path on a log axis", rows)


def structure(report: StructureReport) -> str:
    """Both of them."""
    return f"{shares(report)} {precisions(report)}"


def evidence(report: StructureReport) -> str:
    """The log evidence and its parts."""
    found = curves.measured(report)
    rows = [
        f"epoch {one.epoch}: log evidence {number(one.total)} nats, fit {number(one.fit)}, Occam "
        f"factor {number(one.occam)}"
        for one in (found[0], found[-1])
    ]
    return _said("Curves of the log evidence, the log likelihood and the gap between them", rows)


def loss(report: StructureReport) -> str:
    """The training loss."""
    ends = (report.history[0], report.history[-1])
    rows = [f"epoch {step.epoch}: {number(step.train_nll)} nats" for step in ends]
    return _said("Curve of the training loss", rows)


def check(report: StructureReport) -> str:
    """The votes of the check."""
    rows = [
        f"{printable(layer.name)}: "
        + ", ".join(f"{name} {vote} ({shown})" for name, (vote, shown) in cast.items())
        + f": {found.outcome}"
        for layer, found in votes.checked(report)
        for cast in [votes.votes_of(found)]
    ]
    return _said("Votes on whether free paths break translations", rows)


def pictures(found: Sequence[Picture]) -> str:
    """What pictures of weights there are."""
    rows = [f"{mosaic.title(one)} pixels" for one in found]
    return _said("Pictures of weights, red positive and blue negative", rows)


def calibration(found: Sequence[Calibration]) -> str:
    """Calibration errors."""
    rows = [
        f"{printable(one.predictor)}: accuracy {percent(one.accuracy)}, calibration error "
        f"{percent(one.ece)}"
        for one in found
    ]
    return _said("Accuracy against confidence for each predictor", rows)


def _said(what: str, rows: Sequence[str]) -> str:
    return f"{what}. {'; '.join(rows)}." if rows else f"{what}."
