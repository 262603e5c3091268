"""What the verdicts of layers say of a network."""

from __future__ import annotations

from collections.abc import Iterable

from symlearn.report.rule import OFF, UNDECIDED


def present(verdicts: Iterable[str]) -> frozenset[str]:
    """Paths that some layer has; `UNDECIDED` alone if a layer is."""
    found = frozenset(name for each in verdicts for name in each.split("+")) - {OFF}
    return frozenset({UNDECIDED}) if UNDECIDED in found else found
