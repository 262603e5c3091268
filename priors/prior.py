"""Gaussian priors over named groups of parameters, and how evidence updates their precisions.

A curvature here is any mapping from parameter name to an object with ``eigenvalues`` and
``rotate``; the package knows nothing of how it was computed. Index letters: ``G`` groups, ``P``
parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from priors.relevance import BOUNDS, Relevance, relevance

METHODS = ("fixed_point", "gradient")


class EigenBlock(Protocol):
    """What a curvature must offer for one parameter."""

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues [P]."""

    def rotate(self, w: Tensor) -> Tensor:
        """Coefficients [P] of a parameter-shaped tensor in the eigenbasis."""


Curvature = Mapping[str, EigenBlock]
Parameters = Mapping[str, Tensor]


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
        ValueError: For an empty group, a parameter in two groups, or precisions out of bounds.

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
        self.groups = {name: tuple(members) for name, members in groups.items()}
        members = [m for group in self.groups.values() for m in group]
        twice = sorted({m for m in members if members.count(m) > 1})
        empty = [name for name, group in self.groups.items() if not group]
        if twice or empty or not self.groups:
            raise ValueError(
                f"groups must be non-empty and disjoint; empty: {empty}, named twice: {twice}"
            )
        given = torch.as_tensor(precision, dtype=torch.float64)
        values = given.expand(len(self.groups)).clone()
        low, high = bounds
        if not 0 < low < high or not bool(((values >= low) & (values <= high)).all()):
            raise ValueError(f"precisions {values.tolist()} must lie within bounds {bounds}")
        self.bounds = (float(low), float(high))
        self.log_precision = values.log()
        self._moments = (torch.zeros_like(values), torch.zeros_like(values), 0)

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
        """Set one group's precision, clipped to the bounds."""
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
        """``log p(theta | delta)`` of the grouped parameters, [] (differentiable in them)."""
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
        """
        lam, b_squared = [], []
        delta = self.group_precision(group)
        for name in self.groups[group]:
            if name not in curvature:
                continue
            block = curvature[name]
            theta = block.rotate(params[name].detach())
            g = -delta * theta if gradients is None else block.rotate(gradients[name].detach())
            lam.append(block.eigenvalues)
            b_squared.append((block.eigenvalues * theta - g).square())
        if not lam:
            raise KeyError(f"the curvature covers no parameter of group {group!r}")
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

        A group about which the data say nothing (curvature and gradient both zero) is held.

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
            ValueError: For an unknown method.
            KeyError: For an unknown group, or one that the curvature does not cover.
        """
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; choose one of {list(METHODS)}")
        names = list(self.groups) if groups is None else list(groups)
        tests = {n: self.relevance(n, curvature, params, gradients) for n in names}
        change = torch.zeros_like(self.log_precision)
        for name, test in tests.items():
            if test.informative:
                i = self.index(name)
                if method == "fixed_point":
                    change[i] = step * (test.log_precision - self.log_precision[i])
                else:
                    change[i] = self._slope(name, curvature, params)
        if method == "gradient":
            change = self._adam(change, step)
        low, high = (math.log(b) for b in self.bounds)
        self.log_precision += change.clamp(-max_change, max_change)
        self.log_precision.clamp_(low, high)
        return tests

    def _slope(self, group: str, curvature: Curvature, params: Parameters) -> float:
        """Derivative of the negative log evidence in ``log delta`` at fixed weights."""
        delta, slope = self.group_precision(group), 0.0
        for name in self.groups[group]:
            if name in curvature:
                lam = curvature[name].eigenvalues.double()
                norm = float(params[name].detach().double().square().sum())
                slope += 0.5 * (delta * norm - float((lam / (lam + delta)).sum()))
        return slope

    def _adam(self, slope: Tensor, step: float) -> Tensor:
        m, v, t = self._moments
        m, v, t = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope.square(), t + 1
        self._moments = (m, v, t)
        return -step * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)

    def state_dict(self) -> dict[str, Tensor]:
        """Precisions and optimiser moments as tensors."""
        m, v, t = self._moments
        return {"log_precision": self.log_precision.clone(), "m": m, "v": v, "t": torch.tensor(t)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: If it belongs to a prior with another number of groups.
        """
        if state["log_precision"].shape != self.log_precision.shape:
            raise ValueError(
                f"the state holds {len(state['log_precision'])} groups, this prior has "
                f"{len(self.groups)}"
            )
        self.log_precision = state["log_precision"].double().clone()
        self._moments = (state["m"].clone(), state["v"].clone(), int(state["t"]))
