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
_GRID = 61
_GOLDEN = (math.sqrt(5) - 1) / 2


def profile(log_delta: float, eigenvalues: Tensor, b_squared: Tensor) -> float:
    """The profile objective J in nats at ``log delta``; see the module's formula."""
    delta = math.exp(log_delta)
    fit = (b_squared / (eigenvalues + delta)).sum()
    return 0.5 * float(torch.log1p(eigenvalues / delta).sum() - fit)


@dataclass(frozen=True)
class Relevance:
    """Result of the relevance test of one group.

    Attributes:
        ratio: ``sum b^2 / sum lambda``; the group pays locally iff it exceeds one.
        gain: ``-min J`` in nats: how much the quadratic model of the evidence prefers the group at
            its best precision to its absence. It ranks groups; it is not a Bayes factor.
        log_precision: ``log delta`` at the minimum; the upper bound when absence is preferred.
        informative: False when both sums vanish, so that the data say nothing.
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
        eigenvalues: ``lambda`` [P], not negative.
        b_squared: ``b^2`` [P].
        bounds: Smallest and largest precision considered.

    Raises:
        ValueError: If the bounds are not positive and increasing, or the inputs are not finite.
    """
    low, high = bounds
    if not 0 < low < high:
        raise ValueError(f"bounds are {bounds}; give 0 < lowest < highest precision")
    lam, b_sq = eigenvalues.double(), b_squared.double()
    total, explained = float(lam.sum()), float(b_sq.sum())
    if not (math.isfinite(total) and math.isfinite(explained)):
        raise ValueError("eigenvalues or coefficients contain NaN or infinite values")
    if total <= 0:
        return Relevance(0.0, 0.0, math.log(high), informative=False)
    # directions that the data do not touch contribute nothing to J
    lam, b_sq = lam[lam > 0], b_sq[lam > 0]
    log_delta, value = _minimum(lam, b_sq, math.log(low), math.log(high))
    if value >= 0:
        return Relevance(explained / total, 0.0, math.log(high), informative=True)
    return Relevance(explained / total, -value, log_delta, informative=True)


def _minimum(lam: Tensor, b_sq: Tensor, low: float, high: float) -> tuple[float, float]:
    """Global minimum of J on a grid, refined by golden-section search: (log delta, J)."""
    grid = torch.linspace(low, high, _GRID, dtype=torch.float64).tolist()
    values = [profile(t, lam, b_sq) for t in grid]
    best = min(range(_GRID), key=values.__getitem__)
    a, b = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    while b - a > 1e-9:
        c, d = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
        a, b = (a, d) if profile(c, lam, b_sq) < profile(d, lam, b_sq) else (c, b)
    middle = 0.5 * (a + b)
    refined = profile(middle, lam, b_sq)
    return (middle, refined) if refined <= values[best] else (grid[best], values[best])
