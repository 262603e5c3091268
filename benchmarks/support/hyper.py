"""An evidence step's problem at fixed weights, and ways to walk to its optimal precisions.

Two objectives of the log precisions, one per layer. At *fixed weights* theta it is the negative
evidence, ``1/2 sum [delta ||theta||^2 + sum log(1 + lambda / delta)]`` and a constant. The
*profile* lets the weights follow the precision; see `priors.relevance` for its formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import curvature
import priors
from benchmarks.support import nets, peers
from benchmarks.support.harness import Missing

Objective: TypeAlias = Callable[[Tensor], Tensor]
"""Log precisions [G] to what is to be minimised, []."""
Step: TypeAlias = Callable[[], Tensor]
"""Takes one step and returns the log precisions [G]."""
_ZOOMS, _POINTS = 5, 100


@dataclass(frozen=True)
class Problem:
    """What an evidence step is given.

    Attributes:
        found: Curvature of the log likelihood.
        params: Weights by name.
        gradients: Gradients of the summed negative log likelihood by name.
        groups: Layer to the names of its parameters.
    """

    found: curvature.KroneckerCurvature
    params: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    groups: Mapping[str, list[str]]

    @staticmethod
    def of(net: nn.Module, batches: nets.Batches) -> Problem:
        """Measure it at a network's weights."""
        found = nets.decomposed(net, batches, "exact")
        params = dict(net.named_parameters())
        loss = torch.stack([F.cross_entropy(net(x), y, reduction="sum") for x, y in batches]).sum()
        gradients = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        groups: dict[str, list[str]] = {}
        for name in params:
            groups.setdefault(name.rpartition(".")[0], []).append(name)
        return Problem(found, {n: p.detach() for n, p in params.items()}, gradients, groups)

    def spectra(self) -> list[tuple[Tensor, Tensor]]:
        """Eigenvalues ``lambda`` and ``b^2``, ``b = lambda theta - g``, of every group.

        As in `priors.relevance`, directions without curvature are left out.
        """
        spectra = []
        for members in self.groups.values():
            lam = torch.cat([self.found[n].eigenvalues.double() for n in members])
            theta = torch.cat([self.found[n].rotate(self.params[n]).double() for n in members])
            g = torch.cat([self.found[n].rotate(self.gradients[n]).double() for n in members])
            known = lam > 0
            spectra.append((lam[known], (lam * theta - g)[known].square()))
        return spectra


def profile_objective(problem: Problem) -> Objective:
    """The sum of all groups' profile objectives, for autograd."""
    spectra = problem.spectra()

    def objective(log_precision: Tensor) -> Tensor:
        terms = [
            0.5 * (torch.log1p(lam / delta) - b_sq / (lam + delta)).sum()
            for (lam, b_sq), delta in zip(spectra, log_precision.exp(), strict=True)
        ]
        return torch.stack(terms).sum()

    return objective


def profile_optimum(problem: Problem) -> Tensor:
    """``log delta`` [G] at the profile's global minima, by grids of growing resolution."""
    return torch.tensor([_grid_minimum(lam, b_sq) for lam, b_sq in problem.spectra()]).double()


def _grid_minimum(lam: Tensor, b_sq: Tensor) -> float:
    low, high = (math.log(bound) for bound in priors.BOUNDS)
    for _ in range(_ZOOMS):
        grid = torch.linspace(low, high, _POINTS, dtype=torch.float64).tolist()
        best = min(range(_POINTS), key=lambda i: priors.profile(grid[i], lam, b_sq))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, _POINTS - 1)]
    return 0.5 * (low + high)


def laplace_objective(
    net: nn.Module, batches: nets.Batches, problem: Problem
) -> Objective | Missing:
    """laplace-torch's negative log marginal likelihood, on the problem's eigenvalues."""
    fit = peers.fits(net, ["asdl"])["asdl"]
    if isinstance(fit, Missing):
        return fit
    fitted = fit(batches)
    fitted.H = _kron_decomposed(problem)
    owner = [i for i, members in enumerate(problem.groups.values()) for _ in members]

    def objective(log_precision: Tensor) -> Tensor:
        value: Tensor = -fitted.log_marginal_likelihood(log_precision.exp()[owner])
        return value

    return objective


def _kron_decomposed(problem: Problem) -> object:
    """The problem's eigendecompositions in laplace-torch's form: one pair for each parameter.

    Raises:
        TypeError: If a parameter's curvature is not one pair of factors.
    """
    from laplace.utils.matrix import KronDecomposed

    vectors: list[Any] = []
    values: list[Any] = []
    for name in problem.params:
        block = problem.found[name]
        if not isinstance(block, curvature.KroneckerBlocks) or block.inputs.blocks != 1:
            raise TypeError(f"the curvature of {name!r} is not one pair of Kronecker factors")
        vectors.append([block.outputs.vectors[0], block.inputs.vectors[0]])
        values.append([block.outputs.values[0], block.inputs.values[0] / block.count])
    return KronDecomposed(vectors, values)


def adam(objective: Objective, groups: int, size: float) -> Step:
    """Adam on an objective by autograd, from precisions of one on."""
    log_precision = torch.zeros(groups, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([log_precision], lr=size)

    def step() -> Tensor:
        optimiser.zero_grad()
        objective(log_precision).backward()
        optimiser.step()
        return log_precision.detach()

    return step


def updates(problem: Problem, method: str, size: float) -> Step:
    """Updates of the library's prior, from precisions of one on."""
    prior = priors.PathPrior(problem.groups)

    def step() -> Tensor:
        prior.update(problem.found, problem.params, problem.gradients, method=method, step=size)
        return prior.log_precision

    return step


def steps_to(step: Step, optimum: Tensor, close: float, in_a_row: int, most: int) -> int | None:
    """Steps until all log precisions are ``close`` to the optimum for so many steps in a row.

    Returns:
        The first of these steps, counted from one; None if there is none among the first ``most``.
    """
    inside = 0
    for count in range(1, most + 1):
        inside = inside + 1 if bool(((step() - optimum).abs() < close).all()) else 0
        if inside == in_a_row:
            return count - in_a_row + 1
    return None
