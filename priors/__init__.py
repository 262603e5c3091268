"""Gaussian priors over named groups of parameters, and how evidence updates them."""

from priors.evidence import effective_parameters, log_evidence
from priors.noise import update_noise
from priors.prior import METHODS, Curvature, EigenBlock, Parameters, PathPrior
from priors.relevance import BOUNDS, Relevance, above_rounding, profile, relevance

__all__ = [
    "BOUNDS",
    "METHODS",
    "Curvature",
    "EigenBlock",
    "Parameters",
    "PathPrior",
    "Relevance",
    "above_rounding",
    "effective_parameters",
    "log_evidence",
    "profile",
    "relevance",
    "update_noise",
]
