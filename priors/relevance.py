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
_FINE = 64  # points of the second grid, inside one interval of the first
_BINS = 32  # per unit of log lambda: the search alone merges eigenvalues within 3 % of each other
_MARGIN = 20.0  # below the lowest log delta, terms depend on sums of lambda and b^2 only
_NEWTON_STEPS = 60
_TOLERANCE = 1e-5  # a Newton step of this size leaves an error of about its square


def profile(log_delta: float, eigenvalues: Tensor, b_squared: Tensor) -> float:
    """The profile objective J in nats at ``log delta``; see the module's formula."""
    delta = math.exp(log_delta)
    fit = (b_squared / (eigenvalues + delta)).sum()
    return 0.5 * float(torch.log1p(eigenvalues / delta).sum() - fit)


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


def above_rounding(eigenvalues: Tensor) -> Tensor:
    """Eigenvalues [P] in double; zero where they are no more than rounding.

    They add nothing to the evidence, but along them weights of any size would seem free.
    """
    noise = torch.finfo(eigenvalues.dtype).eps * len(eigenvalues) ** 0.5 * eigenvalues.max()
    return torch.where(eigenvalues.abs() <= noise, 0.0, eigenvalues).double()


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
        if not _finite_and_not_negative(values):
            raise ValueError(f"the {what} contain negative, NaN or infinite values")
    lam, b_sq = lam[lam > 0], b_sq[lam > 0]
    if len(lam) == 0:
        return Relevance(0.0, 0.0, math.log(high), informative=False)
    ratio = float(b_sq.sum() / lam.sum())
    log_delta, value = _minimum(lam, b_sq, math.log(low), math.log(high))
    if value >= 0:
        return Relevance(ratio, 0.0, math.log(high), informative=True)
    return Relevance(ratio, -value, log_delta, informative=True)


def _finite_and_not_negative(values: Tensor) -> bool:
    smallest, largest = values.aminmax() if values.numel() else (values.sum(), values.sum())
    return bool((smallest >= 0) & (largest < math.inf))  # both are NaN if one value is


def _minimum(lam: Tensor, b_sq: Tensor, low: float, high: float) -> tuple[float, float]:
    """Global minimum of J, (log delta, J): the best of both ends and all local minima.

    The local minima are found on merged eigenvalues and then polished on all of them, so that the
    cost is a few passes over the eigenvalues and no start can lead the search astray.
    """
    candidates = [
        _polished(t, max(low, t - _SPACING), min(high, t + _SPACING), lam, b_sq)
        for t in _turning_points(_merged(lam, b_sq, low), low, high)
    ]
    value, best = min((profile(t, lam, b_sq), t) for t in (*candidates, low, high))
    return best, value


@dataclass(frozen=True)
class _Merged:
    """Eigenvalues in narrow bins: ``counts`` at ``lam`` [M], and ``b_sq`` at ``at`` [M].

    The two terms of J have means of their own, so that either errs in second order only.
    """

    counts: Tensor
    lam: Tensor
    b_sq: Tensor
    at: Tensor

    def grid(self, low: float, high: float, points: int) -> Tensor:
        """Equidistant points [T] of log delta."""
        return torch.linspace(low, high, points, dtype=self.lam.dtype, device=self.lam.device)

    def slopes(self, log_delta: Tensor) -> Tensor:
        """``dJ / d log delta`` at several points, [T]."""
        delta = log_delta.exp().unsqueeze(1)
        fit = delta * self.b_sq / (self.at + delta).square()
        return 0.5 * (fit - self.counts * self.lam / (self.lam + delta)).sum(1)


def _merged(lam: Tensor, b_sq: Tensor, low: float) -> _Merged:
    """Merge eigenvalues that are close on a logarithmic scale."""
    index = ((lam.log() - (low - _MARGIN)).clamp(min=0) * _BINS).long()
    zeros = lam.new_zeros(int(index.max()) + 1)

    def total(values: Tensor) -> Tensor:
        return zeros.scatter_add(0, index, values)

    counts, squares = total(torch.ones_like(lam)), total(b_sq)
    used, some = counts > 0, squares > 0
    mean = total(lam) / counts
    at = torch.where(some, total(lam * b_sq) / squares, mean)
    return _Merged(counts[used], mean[used], squares[used], at[used])


def _turning_points(merged: _Merged, low: float, high: float) -> list[float]:
    """Where J stops falling, to within the error of merging."""
    coarse = merged.grid(low, high, 2 + math.floor((high - low) / _SPACING))
    found = []
    for a, b in _intervals(coarse, merged.slopes(coarse) < 0):
        fine = merged.grid(a, b, _FINE)
        falls = merged.slopes(fine) < 0
        falls[0], falls[-1] = True, False  # known; a slope of zero may round to either sign
        found += [0.5 * (c + d) for c, d in _intervals(fine, falls)]
    return found


def _intervals(points: Tensor, falls: Tensor) -> list[tuple[float, float]]:
    """Neighbouring points between which J stops falling."""
    stops = falls[:-1] & ~falls[1:]
    return list(zip(points[:-1][stops].tolist(), points[1:][stops].tolist(), strict=True))


def _polished(t: float, low: float, high: float, lam: Tensor, b_sq: Tensor) -> float:
    """Zero of J's slope near t: Newton's method, and bisection where a step leaves the bracket."""
    for _ in range(_NEWTON_STEPS):
        slope, curve = _derivatives(t, lam, b_sq)
        low, high = (t, high) if slope < 0 else (low, t)
        new = t - slope / curve if curve > 0 else math.inf
        if not low <= new <= high:
            new = 0.5 * (low + high)
        t, step = new, abs(new - t)
        if step < _TOLERANCE:
            break
    return t


def _derivatives(log_delta: float, lam: Tensor, b_sq: Tensor) -> tuple[float, float]:
    """First and second derivative of J in ``log delta``.

    With ``u = lambda / (lambda + delta)``, ``w = 1 - u`` and ``f = b^2 / (lambda + delta)`` they
    are ``1/2 sum [w f - u]`` and ``1/2 sum w [f (u - w) + u]``.
    """
    delta = math.exp(log_delta)
    total = lam + delta
    u, f = lam / total, b_sq / total
    w = delta / total
    slope = torch.dot(w, f) - u.sum()
    curve = torch.dot(w, f * (u - w) + u)
    return 0.5 * float(slope), 0.5 * float(curve)
