"""Parts of an evidence step, to be timed one by one."""

from __future__ import annotations

import curvature


def eigendecompose(found: curvature.KroneckerCurvature) -> None:
    """Decompose all factors anew: those of a sum have no eigendecomposition yet."""
    for block in (found + found).values():
        _ = block.eigenvalues
