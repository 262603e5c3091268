"""The Laplace evidence and the effective number of parameters.

    log p(D | delta) ~ log p(D | theta)
                       - 1/2 sum_g [delta_g ||theta_g||^2 + sum_i log(1 + lambda_i / delta_g)]

(paper, Eq. 9, with the prior's normaliser and the determinant combined).
"""

from __future__ import annotations

import math

import torch

from priors.prior import Curvature, Parameters, PathPrior, check_covered


def log_evidence(
    log_likelihood: float, curvature: Curvature, params: Parameters, prior: PathPrior
) -> float:
    """Laplace approximation of the log marginal likelihood, in nats.

    Parameters in no group are taken as given: they contribute nothing but the likelihood.

    Args:
        log_likelihood: ``log p(D | theta)`` at the weights, summed over the data.
        curvature: Curvature of the log likelihood summed over the same data.
        params: The weights by name.
        prior: The prior.

    Raises:
        KeyError: If grouped parameters have no curvature; all of them are named.
    """
    check_covered(curvature, [m for members in prior.groups.values() for m in members])
    total = log_likelihood
    for name, delta in prior.precisions_by_parameter().items():
        lam = curvature[name].eigenvalues.double()
        norm = float(params[name].detach().double().square().sum())
        total -= 0.5 * (delta * norm + float(torch.log1p(lam / delta).sum()))
    return total


def effective_parameters(curvature: Curvature, prior: PathPrior, group: str) -> float:
    """MacKay's ``gamma = sum lambda / (lambda + delta)`` of one group (paper, App. D.2).

    Raises:
        KeyError: For an unknown group, or if parameters of the group have no curvature.
    """
    delta = prior.group_precision(group)
    check_covered(curvature, prior.groups[group])
    terms = (curvature[name].eigenvalues.double() for name in prior.groups[group])
    return math.fsum(float((lam / (lam + delta)).sum()) for lam in terms)
