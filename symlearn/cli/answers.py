"""The answer of each kind of report in few words, for ``--quiet``."""

from __future__ import annotations

from functools import singledispatch

from symlearn.audit import Audit
from symlearn.propose import Proposals
from symlearn.report import StructureReport
from symlearn.report.document import Document
from symlearn.verdict import Location, SeedsReport


@singledispatch
def answer(document: Document) -> str:
    """What a report says, in a line for each thing it speaks of."""
    raise TypeError(f"no answer is known of a {type(document).__name__}")


@answer.register(StructureReport)
@answer.register(SeedsReport)
def _(document: StructureReport | SeedsReport) -> str:
    return "\n".join(f"{layer.name} {layer.verdict}" for layer in document.layers)


@answer.register
def _(document: Location) -> str:
    return document.verdict


@answer.register
def _(document: Proposals) -> str:
    return "\n".join(f"{row.layer} {row.path}" for row in document.proposed)


@answer.register
def _(document: Audit) -> str:
    return "\n".join(f"{row.transform} {row.mean_square:.4g}" for row in document.lie)
