"""What a reader should know first: how to read the report, and what to beware of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from symlearn.report import rule, votes
from symlearn.report.table import listed, number, percent, printable

if TYPE_CHECKING:
    from symlearn.report.structure import LayerStructure, StructureReport

HOW_TO_READ = (
    "Each bar is a layer, and each colour a path that could explain it; the length of a colour is "
    "the path's share of the effective parameters, those that the data determine against the "
    "prior.",
    "A path whose prior precision δ is high has been switched off by the evidence, so that the "
    "layer keeps the symmetry of the paths that are left: of convolutions, shifts.",
    f"The verdict names the paths that are present, and is '{rule.UNDECIDED}' rather than a guess.",
    "Rely on it where the check by independent measurements agrees and several seeds say the same.",
)
"""Four sentences for somebody who sees such a report for the first time."""

GUESSING = "log_likelihood_of_guessing"
"""Key of the log likelihood of the label frequencies, in nats, among the facts of a report."""

_LEARNED = 0.05  # part of the loss of guessing that a network leaves behind once it has learned
_CLAMPED = 0.01  # share of a factor's eigenvalues that may be negative by rounding
_SHOWN = 8  # names listed in one warning


def warnings(report: StructureReport) -> list[str]:
    """List what limits the report's word, one sentence each.

    Args:
        report: The report.
    """
    return [*of_fit(report), *(note for layer in report.layers for note in _of_layer(layer))]


def of_fit(report: StructureReport) -> Iterator[str]:
    """Yield what limits the report's word on every layer.

    Args:
        report: The report.
    """
    yield from _of_guessing(report)
    if report.objective == "map":
        yield (
            "The weights were trained by MAP: the prior precisions are those of the options, and "
            "no evidence chose the paths."
        )
    if not math.isfinite(report.log_evidence):
        yield "The log evidence was not computed, or is not finite."
    clamped = report.meta.get("clamped_mass")
    if isinstance(clamped, float) and clamped > _CLAMPED:
        yield (
            f"Up to {percent(clamped)} of the mass of a curvature factor was negative and set to "
            "zero: the effective parameters are rough."
        )
    for group in report.coverage:
        if group.kind in ("dense", "diagonal"):
            yield (
                f"The curvature of {listed(group.names, _SHOWN)} is {group.kind} ({group.reason}), "
                "not Kronecker-factored."
            )


def _of_guessing(report: StructureReport) -> Iterator[str]:
    guessing, fit = (report.meta.get(key) for key in (GUESSING, "log_likelihood"))
    if not isinstance(guessing, float) or not isinstance(fit, float):
        return
    if fit < (1 - _LEARNED) * guessing:
        yield (
            "The network predicts its training labels no better than their frequencies do (log "
            f"likelihood {number(fit)}, of guessing {number(guessing)}): it has learned nothing, "
            "and its verdicts say nothing. Try a lower learning rate or other initial weights."
        )
    elif report.log_evidence < guessing:
        yield (
            f"The log evidence is {number(guessing - report.log_evidence)} nats below that of "
            "guessing by the label frequencies: the data are few for this network."
        )


def _of_layer(layer: LayerStructure) -> Iterator[str]:
    name = printable(layer.name)
    if layer.verdict == rule.UNDECIDED:
        yield f"{name} is undecided: {'; '.join(_reasons(layer))}."
    for check in layer.checks:
        if check.outcome == rule.DISAGREE:
            cast = ", ".join(f"{key} {vote}" for key, (vote, _) in votes.votes_of(check).items())
            yield f"{name}: the check disagrees with the verdict about {check.symmetry} ({cast})."


def _reasons(layer: LayerStructure) -> list[str]:
    shares = {n: p.relative_effective_params for n, p in layer.paths.items() if p.on}
    doubtful = [
        f"{printable(name)} has {percent(share)} of the effective parameters"
        for name, share in shares.items()
        if rule.DOUBTFUL_SHARE <= share < rule.ON_SHARE
    ]
    if layer.agreement < rule.MIN_AGREEMENT:
        doubtful.append(f"only {layer.agreement:.0%} of the last evidence steps agreed")
    return doubtful or ["a number that the verdict needs is not finite"]
