"""Verdicts that one fit cannot give: whether they hold whatever the seed, and where."""

from symlearn.verdict.locating import LocationResult, locate
from symlearn.verdict.location import Location, Network
from symlearn.verdict.seeds import SeedsResult, fit_seeds
from symlearn.verdict.seedsreport import SeedsLayer, SeedsReport, Spread
from symlearn.verdict.starts import STARTS

__all__ = [
    "STARTS",
    "Location",
    "LocationResult",
    "Network",
    "SeedsLayer",
    "SeedsReport",
    "SeedsResult",
    "Spread",
    "fit_seeds",
    "locate",
]
