"""The check of a layer's verdict by two measurements that know nothing of the evidence."""

from __future__ import annotations

from dataclasses import dataclass

from symlearn.report import rule, schema


@dataclass(frozen=True)
class Removal:
    """What the network does without some paths of one layer, all else as it was.

    Attributes:
        paths: Names of the paths that were left out, joined by "+".
        lee: The network's local equivariance error without them; nan where it was not measured.
        shift_error: The network's shift error without them.
    """

    paths: str
    lee: float
    shift_error: float

    def __post_init__(self) -> None:
        """Check that every field is a plain number or string."""
        schema.check(self)


@dataclass(frozen=True)
class SymmetryCheck:
    """Three measurements of whether a layer breaks the symmetry of its strict paths.

    Attributes:
        symmetry: What is checked: "translations" (circular, by whole pixels).
        free: Paths that are on and may break it.
        evidence_share: Their relative effective parameters, from the report.
        commuting_share: Share of the squared norm of the layer's trained operator that commutes
            with the translations; nan if its maps share none.
        breaking_share: Share of that squared norm that is in the free paths' part that does not
            commute.
        lee: Local equivariance error of the network: mean square of its Lie derivatives along x
            and y (Gruver et al. 2023, Eq. 4.4); nan where it was not measured.
        shift_error: Mean squared change of the network's outputs under whole-pixel shifts, over
            that between two images: 0 for an invariant network, 1 if a shifted image is like
            another one.
        removals: The network without paths of this layer, where others stay.
        drop: By how much less the shift error is without the free paths, in the network or in the
            network that has no other free paths, whichever shows more; nan if nothing would stay.
        drop_error: Standard error of the drop over images.
        outcome: "agree", "disagree" or "unclear"; see `rule.compare`.
    """

    symmetry: str
    free: tuple[str, ...]
    evidence_share: float
    commuting_share: float
    breaking_share: float
    lee: float
    shift_error: float
    removals: tuple[Removal, ...]
    drop: float
    drop_error: float
    outcome: str

    def __post_init__(self) -> None:
        """Check the field types and the outcome."""
        schema.check(self)
        if self.outcome not in rule.OUTCOMES:
            raise ValueError(
                f"a check's outcome is one of {list(rule.OUTCOMES)}, got {self.outcome!r}"
            )
