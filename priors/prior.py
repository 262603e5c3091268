"""Gaussian priors over named groups of parameters, and how evidence updates their precisions.

A curvature here is any mapping from parameter name to an object with ``eigenvalues`` and
``rotate``; the package knows nothing of how it was computed. Index letters: ``G`` groups, ``P``
parameters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from priors.relevance import BOUNDS, Relevance, above_rounding, relevance

METHODS = ("fixed_point", "gradient")
"""How `PathPrior.update` moves precisions."""
_SLACK = 1e-9
_STATE = ("log_precision", "m", "v", "t")


class EigenBlock(Protocol):
    """What a curvature must offer for one parameter."""

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues [P]."""

    def rotate(self, w: Tensor) -> Tensor:
        """Coefficients [P] of a parameter-shaped tensor in the eigenbasis."""


Curvature = Mapping[str, EigenBlock]
"""Curvature of the log likelihood by parameter name."""
Parameters = Mapping[str, Tensor]
"""Weights, or gradients, by parameter name."""


def check_covered(curvature: Curvature, names: Sequence[str]) -> None:
    """Refuse parameters without curvature.

    Raises:
        KeyError: If there are any; all of them are named.
    """
    missing = [name for name in names if name not in curvature]
    if missing:
        raise KeyError(f"the curvature does not cover {missing}")


class PathPrior:
    """Independent Gaussians ``N(0, 1/delta_g)``, one precision per named group of parameters.

    Args:
        groups: Group name to the names of its parameters; a parameter is in at most one group.
        precision: Initial precision of every group, or one per group.
        bounds: Smallest and largest precision that updates may reach.

    Attributes:
        groups: As given, in order.
        log_precision: Natural logarithm of each group's precision, [G] (float64, on the CPU).

    Raises:
        ValueError: For no group, an empty group, a parameter in two groups, or precisions that are
            out of bounds or not one per group.
        TypeError: If the parameters of a group are given as one string.

    Example:
        >>> import torch, priors
        >>> prior = priors.PathPrior({"conv": ["w"], "head": ["v", "b"]}, precision=4.0)
        >>> prior.variance.tolist()
        [0.25, 0.25]
        >>> prior.precision_vector({"v": torch.zeros(2), "w": torch.zeros(1)}).tolist()
        [4.0, 4.0, 4.0]
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]],
        precision: float | Sequence[float] | Tensor = 1.0,
        bounds: tuple[float, float] = BOUNDS,
    ) -> None:
        strings = [name for name, members in groups.items() if isinstance(members, str)]
        if strings:
            raise TypeError(f"groups {strings} are strings; give lists of parameter names")
        self.groups = {name: tuple(members) for name, members in groups.items()}
        counts = Counter(m for members in self.groups.values() for m in members)
        twice = sorted(m for m, count in counts.items() if count > 1)
        empty = [name for name, members in self.groups.items() if not members]
        if twice or empty or not self.groups:
            raise ValueError(
                "groups must be non-empty and disjoint; "
                f"groups: {len(self.groups)}, empty: {empty}, parameters named twice: {twice}"
            )
        given = torch.as_tensor(precision, dtype=torch.float64, device="cpu").detach()
        if given.ndim > 1 or given.numel() not in (1, len(self.groups)):
            raise ValueError(
                f"precision has shape {list(given.shape)}; give one number, or one for each of "
                f"the {len(self.groups)} groups"
            )
        values = given.expand(len(self.groups)).clone()
        low, high = bounds
        # a precision that was stored as its logarithm may come back an ulp out of bounds
        inside = (values >= low * (1 - _SLACK)) & (values <= high * (1 + _SLACK))
        if not 0 < low < high < math.inf or not bool(inside.all()):
            raise ValueError(f"precisions {values.tolist()} must lie within bounds {bounds}")
        self.bounds = (float(low), float(high))
        self.log_precision = values.clamp(low, high).log()
        # Adam's moments and the number of its steps, per group
        self._moments = (torch.zeros_like(values),) * 3

    @property
    def precision(self) -> Tensor:
        """Prior precisions delta, [G]."""
        return self.log_precision.exp()

    @property
    def variance(self) -> Tensor:
        """Prior variances 1/delta, [G]."""
        return (-self.log_precision).exp()

    def index(self, group: str) -> int:
        """Position of a group.

        Raises:
            KeyError: For an unknown group; the message lists the groups.
        """
        names = list(self.groups)
        if group not in names:
            raise KeyError(f"no prior group {group!r}; the groups are {names}")
        return names.index(group)

    def group_precision(self, group: str) -> float:
        """Precision delta of one group."""
        return math.exp(float(self.log_precision[self.index(group)]))

    def set_precision(self, group: str, precision: float) -> None:
        """Set one group's precision, clipped to the bounds.

        Raises:
            ValueError: If it is not positive.
            KeyError: For an unknown group.
        """
        if not precision > 0:
            raise ValueError(f"the precision of {group!r} is {precision}; it must be positive")
        low, high = self.bounds
        self.log_precision[self.index(group)] = math.log(min(max(precision, low), high))

    def precisions_by_parameter(self) -> dict[str, float]:
        """Parameter name to precision, for all grouped parameters."""
        return {
            member: delta
            for members, delta in zip(self.groups.values(), self.precision.tolist(), strict=True)
            for member in members
        }

    def precision_vector(self, params: Parameters) -> Tensor:
        """Precision of every scalar parameter, [P], in the order of ``params``.

        Parameters in no group have no prior and get precision zero.
        """
        by_name = self.precisions_by_parameter()
        parts = [
            torch.full((p.numel(),), by_name.get(n, 0.0), dtype=p.dtype, device=p.device)
            for n, p in params.items()
        ]
        return torch.cat(parts) if parts else torch.zeros(0)

    def log_prob(self, params: Parameters) -> Tensor:
        """``log p(theta | delta)`` of the grouped parameters, [] (differentiable in them).

        Raises:
            KeyError: If grouped parameters are missing; all of them are named.
        """
        missing = [name for name in self.precisions_by_parameter() if name not in params]
        if missing:
            raise KeyError(f"the parameters lack {missing}, which are in prior groups")
        total = torch.zeros((), dtype=torch.float64)
        for members, log_delta in zip(self.groups.values(), self.log_precision, strict=True):
            for member in members:
                w = params[member]
                norm = w.square().sum().double().cpu()
                normaliser = w.numel() * (log_delta - math.log(2 * math.pi))
                total = total + 0.5 * (normaliser - log_delta.exp() * norm)
        return total

    def relevance(
        self,
        group: str,
        curvature: Curvature,
        params: Parameters,
        gradients: Parameters | None = None,
    ) -> Relevance:
        """Relevance test of one group at the current weights; see `priors.relevance`.

        Args:
            group: Name of the group.
            curvature: Curvature of the log likelihood summed over the data.
            params: Current weights by name.
            gradients: Gradients of the summed negative log likelihood by name. Without them the
                weights are taken to be at a mode, where the gradient is ``-delta theta``.

        Raises:
            KeyError: For an unknown group, or if parameters of the group have no curvature.
            ValueError: If eigenvalues or coefficients are not finite.
        """
        delta, lam, b_squared = self.group_precision(group), [], []
        check_covered(curvature, self.groups[group])
        for name in self.groups[group]:
            block = curvature[name]
            values = above_rounding(block.eigenvalues)
            theta = block.rotate(params[name].detach()).double()
            if gradients is None:
                g = -delta * theta
            else:
                g = block.rotate(gradients[name].detach()).double()
            lam.append(values)
            b_squared.append((values * theta - g).square())
        return relevance(torch.cat(lam), torch.cat(b_squared), self.bounds)

    def update(
        self,
        curvature: Curvature,
        params: Parameters,
        gradients: Parameters | None = None,
        *,
        groups: Sequence[str] | None = None,
        method: str = "fixed_point",
        step: float = 1.0,
        max_change: float = math.inf,
    ) -> dict[str, Relevance]:
        """Move precisions towards larger evidence.

        ``fixed_point`` moves ``log delta`` the fraction ``step`` of the way to the global minimum
        of the profile objective, at most ``max_change``. ``gradient`` takes one Adam step of size
        ``step`` on ``log delta`` with the gradient ``1/2 (delta ||theta||^2 - gamma)`` of the
        negative log evidence at the current weights (the published alternative).

        A group without curvature, about which the data say nothing, is held, as are the groups that
        are not asked for.

        Args:
            curvature: As in `relevance`.
            params: As in `relevance`.
            gradients: As in `relevance`; not used by ``gradient``.
            groups: Names of the groups to update; all by default.
            method: One of `METHODS`.
            step: Fraction of the way (fixed_point), or Adam's step size (gradient).
            max_change: Largest change of ``log delta`` in one update.

        Returns:
            The relevance test of every updated group, at the precision before the update.

        Raises:
            ValueError: For an unknown method, or a step or largest change that is not positive.
            KeyError: For an unknown group, or one that the curvature does not cover.
        """
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; choose one of {list(METHODS)}")
        if not (step > 0 and max_change > 0):
            raise ValueError(f"step is {step} and max_change {max_change}; both must be positive")
        names = list(self.groups) if groups is None else list(groups)
        tests = {n: self.relevance(n, curvature, params, gradients) for n in names}
        moved = {self.index(n): (n, test) for n, test in tests.items() if test.informative}
        change = torch.zeros_like(self.log_precision)
        for i, (name, test) in moved.items():
            if method == "fixed_point":
                change[i] = step * (test.log_precision - self.log_precision[i])
            else:
                change[i] = self._adam(i, self._slope(name, curvature, params), step)
        low, high = (math.log(b) for b in self.bounds)
        change = change.clamp(-max_change, max_change)
        self.log_precision = (self.log_precision + change).clamp(low, high)
        return tests

    def _slope(self, group: str, curvature: Curvature, params: Parameters) -> float:
        """Derivative of the negative log evidence in ``log delta`` at fixed weights."""
        delta, slope = self.group_precision(group), 0.0
        for name in self.groups[group]:
            lam = curvature[name].eigenvalues.double()
            norm = float(params[name].detach().double().square().sum())
            slope += 0.5 * (delta * norm - float((lam / (lam + delta)).sum()))
        return slope

    def _adam(self, i: int, slope: float, step: float) -> float:
        """One Adam step of group i (Kingma and Ba 2015); other groups keep their moments."""
        m, v, t = (moment.clone() for moment in self._moments)
        m[i], v[i], t[i] = 0.9 * m[i] + 0.1 * slope, 0.999 * v[i] + 0.001 * slope**2, t[i] + 1
        self._moments = (m, v, t)
        mean, square = m[i] / (1 - 0.9 ** t[i]), v[i] / (1 - 0.999 ** t[i])
        return -step * float(mean / (square.sqrt() + 1e-8))

    def state_dict(self) -> dict[str, Tensor]:
        """Precisions and optimiser moments as tensors."""
        values = (self.log_precision, *self._moments)
        return {key: value.clone() for key, value in zip(_STATE, values, strict=True)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: If it is incomplete, belongs to a prior with another number of groups, or
                holds values that are not finite.
        """
        if set(state) != set(_STATE):
            raise ValueError(f"the state holds {sorted(state)}; a prior's holds {sorted(_STATE)}")
        values = [state[key].detach().double().cpu().clone() for key in _STATE]
        if any(value.shape != self.log_precision.shape for value in values):
            raise ValueError(
                f"the state holds tensors of shapes {[list(value.shape) for value in values]}, "
                f"this prior has {len(self.groups)} groups"
            )
        if not all(bool(torch.isfinite(value).all()) for value in values):
            raise ValueError("the state holds NaN or infinite values")
        self.log_precision, *moments = values
        self._moments = (moments[0], moments[1], moments[2])
