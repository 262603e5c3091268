"""One precision, many coefficients: the profile evidence, its minimum and the relevance test.

In the eigenbasis of the curvature let ``lambda_i`` be eigenvalues, ``theta_i`` coefficients of the
current weights and ``g_i`` of the gradient of the negative log likelihood. Expanding to second
order around the current weights, with ``b_i = lambda_i theta_i - g_i`` and prior precision
``delta``, the minimising weights are ``b_i / (lambda_i + delta)`` and, up to a constant,

    J(delta) = 1/2 sum log(1 + lambda_i / delta) - 1/2 sum b_i^2 / (lambda_i + delta)

is the negative log evidence, relative to ``delta -> infinity`` (the group absent). Its derivative
``dJ / d log delta = 1/2 (delta ||theta*||^2 - gamma)`` vanishes at MacKay's fixed point
``delta = gamma / ||theta*(delta)||^2``; for large delta, J ~ (sum lambda - sum b^2) / (2 delta), so
a group pays locally iff ``sum b^2 > sum lambda`` (the relevance test of Tipping and Faul 2003, for
a group of weights).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BOUNDS = (1e-8, 1e12)
"""Default range of prior precisions that the search considers."""
_SPACING = 0.75  # of the search grid in log delta; terms of J vary over more than one unit
_BISECTIONS = 50


def profile(log_delta: float, eigenvalues: Tensor, b_squared: Tensor) -> float:
    """The profile objective J in nats at ``log delta``; see the module's formula."""
    delta = math.exp(log_delta)
    fit = (b_squared / (eigenvalues + delta)).sum()
    return 0.5 * float(torch.log1p(eigenvalues / delta).sum() - fit)


def _slope(log_delta: float, lam: Tensor, b_sq: Tensor) -> float:
    """``dJ / d log delta = 1/2 sum [delta b^2 / (lambda + delta) - lambda] / (lambda + delta)``."""
    delta = math.exp(log_delta)
    total = lam + delta
    return 0.5 * float(((delta * b_sq / total - lam) / total).sum())


@dataclass(frozen=True)
class Relevance:
    """Result of the relevance test of one group.

    Attributes:
        ratio: ``sum b^2 / sum lambda`` over the directions with curvature; the group pays locally
            iff it exceeds one.
        gain: ``-min J`` in nats: how much the quadratic model of the evidence prefers the group at
            its best precision to its absence. It ranks groups; it is not a Bayes factor.
        log_precision: ``log delta`` at the minimum; the upper bound when absence is preferred.
        informative: False when all eigenvalues vanish, so that the data say nothing.
    """

    ratio: float
    gain: float
    log_precision: float
    informative: bool

    @property
    def absent(self) -> bool:
        """Whether the evidence prefers the group's absence."""
        return self.gain <= 0


def relevance(
    eigenvalues: Tensor, b_squared: Tensor, bounds: tuple[float, float] = BOUNDS
) -> Relevance:
    """Minimise the profile objective globally over the precision.

    Args:
        eigenvalues: ``lambda`` [P], not negative. Directions in which it is zero are left out: the
            likelihood does not change along them, whatever an approximate curvature makes of b.
        b_squared: ``b^2`` [P].
        bounds: Smallest and largest precision considered.

    Raises:
        ValueError: If the bounds are not positive and increasing, or the two inputs differ in
            shape, are negative, NaN or infinite.
    """
    low, high = bounds
    if not 0 < low < high < math.inf:
        raise ValueError(f"bounds are {bounds}; give 0 < lowest < highest precision")
    if eigenvalues.shape != b_squared.shape:
        raise ValueError(
            f"eigenvalues {list(eigenvalues.shape)} and b_squared {list(b_squared.shape)} differ "
            "in shape"
        )
    lam, b_sq = eigenvalues.detach().double(), b_squared.detach().double()
    for what, values in (("eigenvalues", lam), ("squared coefficients", b_sq)):
        if not bool(((values >= 0) & torch.isfinite(values)).all()):
            raise ValueError(f"the {what} contain negative, NaN or infinite values")
    lam, b_sq = lam[lam > 0], b_sq[lam > 0]
    if len(lam) == 0:
        return Relevance(0.0, 0.0, math.log(high), informative=False)
    ratio = float(b_sq.sum() / lam.sum())
    log_delta, value = _minimum(lam, b_sq, math.log(low), math.log(high))
    if value >= 0:
        return Relevance(ratio, 0.0, math.log(high), informative=True)
    return Relevance(ratio, -value, log_delta, informative=True)


def _minimum(lam: Tensor, b_sq: Tensor, low: float, high: float) -> tuple[float, float]:
    """Global minimum of J, (log delta, J): the best of both ends and all local minima."""
    points = 2 + math.floor((high - low) / _SPACING)
    grid = torch.linspace(low, high, points, dtype=torch.float64).tolist()
    falls = [_slope(t, lam, b_sq) < 0 for t in grid]
    candidates = [
        _turning_point(a, b, lam, b_sq)
        for a, b, falls_a, falls_b in zip(grid, grid[1:], falls, falls[1:], strict=False)
        if falls_a and not falls_b
    ]
    value, best = min((profile(t, lam, b_sq), t) for t in (*candidates, low, high))
    return best, value


def _turning_point(a: float, b: float, lam: Tensor, b_sq: Tensor) -> float:
    """Where J stops falling between a and b, by bisection of its slope."""
    for _ in range(_BISECTIONS):
        middle = 0.5 * (a + b)
        a, b = (middle, b) if _slope(middle, lam, b_sq) < 0 else (a, middle)
    return 0.5 * (a + b)
