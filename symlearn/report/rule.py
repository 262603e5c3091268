"""The verdict rule: which of a layer's paths are present, by their effective parameters.

The thresholds live here and nowhere else. A path that the fit left on is

* *present* when its relative effective parameters reach `ON_SHARE`,
* *doubtful* when they lie in `[DOUBTFUL_SHARE, ON_SHARE)`,
* absent below that. A path that the fit switched off is always absent.

The verdict names the present paths. It is `"undecided"` rather than a guess when a path is
doubtful, when a number the rule needs is not finite, or when the last evidence steps disagreed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from symlearn.report.structure import PathStructure

ON_SHARE = 0.05
"""Relative effective parameters from which a path that is on counts as present."""

DOUBTFUL_SHARE = 0.01
"""Relative effective parameters from which a path that is on counts as doubtful."""

MIN_AGREEMENT = 0.5
"""Share of the last evidence steps that must have had the same verdict."""

OFF = "off"
UNDECIDED = "undecided"


def verdict(
    paths: Mapping[str, PathStructure],
    *,
    on: float = ON_SHARE,
    doubtful: float = DOUBTFUL_SHARE,
    agreement: float = math.nan,
) -> str:
    """Name the paths that are present in one layer.

    Args:
        paths: The layer's paths by name. The verdict keeps their order.
        on: Relative effective parameters from which a path counts as present.
        doubtful: Relative effective parameters from which a path counts as doubtful.
        agreement: Share of the last evidence steps that had the same verdict; nan when not
            recorded, which leaves it out of the rule.

    Returns:
        The present paths joined by `"+"` (`"conv"`, `"conv+ffc"`), `"off"` when none is present or
        doubtful, `"undecided"` when one is doubtful, a number of the rule is not finite, or
        `agreement` is below `MIN_AGREEMENT`.

    Raises:
        ValueError: If there is no path, if not `0 <= doubtful <= on <= 1`, or if `agreement` is
            neither nan nor in `[0, 1]`.
    """
    problems = list(_problems(paths, on, doubtful, agreement))
    if problems:
        raise ValueError("; ".join(problems))
    shares = {name: path.relative_effective_params for name, path in paths.items() if path.on}
    known = all(math.isfinite(number) for path in paths.values() for number in _involved(path))
    unsure = any(doubtful <= share < on for share in shares.values())
    if not known or unsure or agreement < MIN_AGREEMENT:
        return UNDECIDED
    return "+".join(name for name, share in shares.items() if share >= on) or OFF


def describe(on: float = ON_SHARE, doubtful: float = DOUBTFUL_SHARE) -> str:
    """Say the rule in words, for the foot of a report.

    Args:
        on: As in `verdict`.
        doubtful: As in `verdict`.
    """
    return (
        f"A verdict names the paths that are on and hold at least {on:.0%} of the layer's "
        f"relative effective parameters. It is '{UNDECIDED}' when a path that is on "
        f"holds {doubtful:.0%} to {on:.0%}, when a number is not finite, or when fewer than "
        f"{MIN_AGREEMENT:.0%} of the last evidence steps agreed; '{OFF}' when no path is left."
    )


def _involved(path: PathStructure) -> tuple[float, ...]:
    # An off path may have an infinite precision; only its share enters the other paths' shares.
    if not path.on:
        return (path.relative_effective_params,)
    return (
        path.relative_effective_params,
        path.normalised_effective_params,
        path.effective_params,
        path.weight_norm_sq,
        path.prior_precision,
    )


def _problems(
    paths: Mapping[str, PathStructure], on: float, doubtful: float, agreement: float
) -> Iterator[str]:
    if not paths:
        yield "a verdict needs at least one path, got none"
    # Written so that a nan fails.
    if not 0.0 <= doubtful <= on <= 1.0:
        yield f"thresholds need 0 <= doubtful <= on <= 1, got doubtful={doubtful} and on={on}"
    if not (math.isnan(agreement) or 0.0 <= agreement <= 1.0):
        yield f"agreement is a share in [0, 1], or nan when not recorded; got {agreement}"
