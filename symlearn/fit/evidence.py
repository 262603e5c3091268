"""One evidence step: measure curvature and gradients at the averaged weights, move precisions."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import curvature
import priors
from curvature import ALONE, KroneckerCurvature, Likelihood, Reduction
from symlearn.fit.data import Counted
from symlearn.fit.energy import energy_gradients


@dataclass(frozen=True)
class Measurement:
    """The second-order picture of the likelihood at some weights, for all N training samples.

    Attributes:
        curvature: Curvature of the (weighted) log likelihood, scaled to N.
        gradients: Gradients of the (weighted) negative log likelihood, summed over N, and of the
            energies of paths (`Path.energy`), by name.
        params: The weights by name.
        log_likelihood: ``log p(D | theta)``, weighted, summed over N, less the energies of paths.
        residual_sq: Sum of squared residuals over N (gaussian likelihood, else 0).
        n_targets: Number of observed values.
    """

    curvature: KroneckerCurvature
    gradients: dict[str, Tensor]
    params: dict[str, Tensor]
    log_likelihood: float
    residual_sq: float
    n_targets: int


def total_gradients(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    likelihood: Likelihood,
    names: Collection[str],
    processes: Reduction = ALONE,
) -> tuple[dict[str, Tensor], float, float, int]:
    """Gradients of the summed negative log likelihood in eval mode; without names only its value.

    Each process computes on its rows of each batch; the sums are those of all.

    Returns:
        Gradients by name, the log likelihood, the sum of squared residuals (gaussian), and the
        number of observed values.
    """
    named = {n: p for n, p in model.named_parameters() if n in names}
    weights = list(named.values())
    # in double: at the mode the gradients of the batches nearly cancel
    totals = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in named.items()}
    log_likelihood, residual_sq, n_targets = 0.0, 0.0, 0
    with curvature.evaluating(model), torch.set_grad_enabled(bool(named)):
        for x, y in batches:
            share = processes.share(len(x))
            if not share.counted:
                continue
            outputs = curvature.outputs_of(model, share.of(x))
            y = likelihood.check(outputs.detach(), share.of(y))
            value = likelihood.log_prob(outputs, y)
            terms = torch.autograd.grad(-value, weights, allow_unused=True) if named else ()
            for name, g in zip(named, terms, strict=True):
                if g is not None:
                    totals[name] += g
            log_likelihood += float(likelihood.log_prob(outputs.detach().double(), y))
            n_targets += y.numel()
            if likelihood.name == "gaussian":
                residual_sq += float((outputs.detach() - y).double().square().sum())
    processes.sum(*totals.values())
    log_likelihood, residual_sq, observed = processes.numbers(
        log_likelihood, residual_sq, n_targets
    )
    grads = {name: total.to(named[name]) for name, total in totals.items()}
    return grads, log_likelihood, residual_sq, round(observed)


def measure(
    model: nn.Module,
    subset: Iterable[tuple[Tensor, Tensor]],
    everything: Iterable[tuple[Tensor, Tensor]],
    likelihood: Likelihood,
    *,
    estimator: str,
    draws: int = 1,
    sharing: str = "expand",
    ekfac: bool = False,
    weight: float = 1.0,
    fallback: str = "error",
    seed: int = 0,
    processes: Reduction = ALONE,
) -> Measurement:
    """Curvature from a random subset, scaled up to all data, and gradients from all data.

    A gradient from the subset would carry noise that looks like evidence for weak paths: its
    square is inflated by N over the subset's size.
    """
    result = curvature.kronecker(
        model,
        subset,
        likelihood,
        estimator,
        sharing=sharing,
        ekfac=ekfac,
        fallback=fallback,
        draws=draws,
        seed=seed,
        reduction=processes,
    )
    counted = Counted(everything)
    grads, log_likelihood, residual_sq, n_targets = total_gradients(
        model, counted, likelihood, set(result), processes
    )
    named = {n: p for n, p in model.named_parameters() if n in grads}
    energy, slopes = energy_gradients(model, named)
    return Measurement(
        result.scaled(weight * counted.n / result.n_data),
        {name: weight * g + slopes.get(name, 0) for name, g in grads.items()},
        {name: p.detach().clone() for name, p in model.named_parameters()},
        weight * log_likelihood - energy,
        residual_sq,
        n_targets,
    )


def active_groups(prior: priors.PathPrior, result: KroneckerCurvature) -> list[str]:
    """Groups whose parameters all have a curvature: those of paths that are switched on."""
    return [g for g, members in prior.groups.items() if all(m in result for m in members)]


def evidence_of(prior: priors.PathPrior, found: Measurement) -> float:
    """Log evidence in nats of the measured weights; absent paths contribute nothing."""
    part = part_of(prior, active_groups(prior, found.curvature))
    return priors.log_evidence(found.log_likelihood, found.curvature, found.params, part)


def cost_of(prior: priors.PathPrior, found: Measurement, groups: Collection[str]) -> float:
    """Nats of log evidence that groups cost, all groups being as they are.

    It is ``1/2 sum_g [delta_g ||theta_g||^2 + sum_i log(1 + lambda_i / delta_g)]``: what their
    removal saves while the likelihood and the other groups stay the same. Groups without
    curvature cost nothing.
    """
    active = set(active_groups(prior, found.curvature)) & set(groups)
    if not active:
        return 0.0
    part = part_of(prior, sorted(active))
    return -priors.log_evidence(0.0, found.curvature, found.params, part)


def part_of(prior: priors.PathPrior, groups: Collection[str]) -> priors.PathPrior:
    """The prior of some groups."""
    index = [prior.index(group) for group in groups]
    return priors.PathPrior(
        {group: prior.groups[group] for group in groups}, prior.precision[index], prior.bounds
    )


def effective_of(prior: priors.PathPrior, found: Measurement) -> dict[str, float]:
    """Effective parameters gamma of every group with a curvature."""
    return {
        group: priors.effective_parameters(found.curvature, prior, group)
        for group in active_groups(prior, found.curvature)
    }
